//! Appending: what is promised to whom, and when.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use gate_core::frame::Frame;

use super::{batch, dir, frame, memfs::MemFs, open, path, records, timeless};
use crate::{
    ErrorClass,
    wal::{Opened, Options, Reader, Wal, WalError},
};

#[test]
fn a_failed_sync_fails_everybody_at_once_and_for_good() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    wal.append(batch("before", 1)).wait().unwrap();
    let end = wal.end();
    let gate = fs.gate.lock().unwrap();
    // The first is in the sync already or will be; the others queue behind it.
    let acks: Vec<_> = (0..64).map(|i| wal.append(batch(&format!("w{i}"), 1 + i % 3))).collect();
    let errors = thread::scope(|scope| {
        let waiters: Vec<_> = acks.into_iter().map(|ack| scope.spawn(|| ack.wait())).collect();
        fs.fail_syncs();
        drop(gate);
        waiters.into_iter().map(|waiter| waiter.join().unwrap().unwrap_err()).collect::<Vec<_>>()
    });
    assert_eq!(errors.len(), 64);
    for error in &errors {
        assert!(matches!(error, WalError::Poisoned { op, .. } if op == "sync"), "{error}");
        assert_eq!(error.class(), ErrorClass::Unavailable);
    }
    let written = fs.bytes(&path("telemetry.wal"));
    assert!(matches!(wal.append(batch("after", 1)).wait(), Err(WalError::Poisoned { .. })));
    assert!(matches!(end.wait(), Err(WalError::Poisoned { .. })));
    assert!(matches!(wal.failure(), Some(WalError::Poisoned { .. })));
    assert!(matches!(wal.close(), Err(WalError::Poisoned { .. })));
    assert_eq!(fs.bytes(&path("telemetry.wal")), written, "something was retried");
}

#[test]
fn a_queue_that_is_full_refuses_and_recovers() {
    let fs = MemFs::default();
    let options = Options { queue_frames: 10, ..timeless() };
    let (wal, _) = Wal::open_on(dir(&fs), &options).unwrap();
    let gate = fs.gate.lock().unwrap();
    let in_flight = wal.append(batch("first", 1));
    while fs.bytes(&path("telemetry.wal")).unwrap().is_empty() {
        thread::yield_now();
    }
    let queued = wal.append(batch("second", 9));
    let refused = wal.append(batch("third", 2)).wait().unwrap_err();
    assert!(matches!(refused, WalError::Overloaded { frames: 9, .. }), "{refused}");
    drop(gate);
    assert_eq!(in_flight.wait().unwrap(), 1..=1);
    assert_eq!(queued.wait().unwrap(), 2..=10);
    assert_eq!(wal.append(batch("fourth", 2)).wait().unwrap(), 11..=12);
    wal.close().unwrap();

    let options = Options { queue_bytes: 2000, ..timeless() };
    let (wal, _) = Wal::open_on(dir(&fs), &options).unwrap();
    assert!(matches!(wal.append(batch("wide", 4)).wait(), Err(WalError::Overloaded { .. })));
}

#[test]
fn a_tail_of_zeros_that_no_disk_holds_is_set_aside_without_filling_one() {
    use std::os::unix::fs::MetadataExt as _;
    const BYTES: u64 = 256 * 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    wal.append(batch("kept", 1)).wait().unwrap();
    wal.close().unwrap();
    let log = fs::OpenOptions::new().write(true).open(dir.path().join("telemetry.wal")).unwrap();
    let end = log.metadata().unwrap().len();
    log.set_len(end + BYTES).unwrap();
    let (_wal, opened) = Wal::open(dir.path(), Options::default()).unwrap();
    let Opened::Repaired { bytes, tail_file, .. } = opened else { panic!("{opened:?}") };
    assert_eq!(bytes, BYTES);
    let tail = fs::metadata(dir.path().join(tail_file)).unwrap();
    assert_eq!(tail.len(), BYTES);
    assert!(tail.blocks() * 512 < 1024 * 1024, "{} blocks", tail.blocks());
}

#[test]
fn batches_from_many_threads_stay_together() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, opened) = Wal::open(dir.path(), Options::default()).unwrap();
    assert_eq!(opened, Opened::Initialized);
    let acked: Vec<_> = thread::scope(|scope| {
        let append = |who: usize| {
            let wal = &wal;
            move || {
                let one = |i: usize| {
                    let name = format!("t{who}i{i}");
                    (wal.append(batch(&name, 1 + (who + i) % 4)).wait().unwrap(), name)
                };
                (0..20).map(one).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..16).map(|who| scope.spawn(append(who))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    wal.close().unwrap();
    let records: Vec<_> = Reader::open(dir.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len() as u64, *acked.iter().map(|(seqs, _)| seqs.end()).max().unwrap());
    for (seqs, name) in acked {
        for (i, seq) in seqs.clone().enumerate() {
            let record = &records[usize::try_from(seq).unwrap() - 1];
            assert_eq!(record.attrs, frame(&format!("{name}.{i}")).attrs);
            assert_eq!(u64::from(record.left), seqs.end() - seq);
            assert!(record.durable < *seqs.start());
        }
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    let refused = Wal::open(dir.path(), Options::default()).unwrap_err();
    let expected = format!(
        "log at `{}` is in use by process {}: stop that process, or choose another directory with `--wal-dir`",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(refused.to_string(), expected);
    assert_eq!(refused.class(), ErrorClass::Unavailable);
    wal.append(batch("still", 2)).wait().unwrap();
    wal.close().unwrap();
    assert!(matches!(wal.append(batch("late", 1)).wait(), Err(WalError::Closed)));
    let (_wal, opened) = Wal::open(dir.path(), Options::default()).unwrap();
    assert_eq!(opened, Opened::Clean { last_seq: 2 });
}

#[test]
fn what_no_reader_would_accept_is_refused_and_nothing_is_written() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    let with = |attrs: String| Frame { attrs, ..frame("x") };
    let refusal = |batch: Vec<Frame>| {
        let error = wal.append(batch).wait().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage);
        error.to_string()
    };
    assert_eq!(refusal(vec![]), "append holds no frame: give at least one");
    let large = with(format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024)));
    assert_eq!(refusal(vec![frame("good"), large]), "frame attrs have 1048584 bytes: keep them within 1048064");
    for attrs in ["", "{", "[]", "{}{}", " {}", "{} ", "{\"a\":}", "{\"a\":1}}", "null}", "{\"a\":\"\n\"}"] {
        let text = refusal(vec![with(attrs.to_owned())]);
        assert!(
            text.starts_with("frame attrs are not a JSON object (") && text.ends_with("): give one object"),
            "{text}"
        );
    }
    assert!(refusal(vec![frame("x"); 5000]).starts_with("append holds 5000 frames"));
    let wide = with(format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000)));
    assert!(refusal(vec![wide.clone(); 5]).starts_with("append holds 5 frames, 50"));
    assert_eq!(fs.bytes(&path("telemetry.wal")).unwrap(), b"");
    assert_eq!(wal.append(vec![wide; 4]).wait().unwrap(), 1..=4);
}

#[test]
fn dropping_the_log_writes_what_is_queued() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    for i in 0..100 {
        drop(wal.append(batch(&format!("b{i}"), 2)));
    }
    drop(wal);
    assert_eq!(records(&fs).len(), 200);
    assert_eq!(fs.bytes(&path("telemetry.safe_seq")).unwrap(), 200_u64.to_le_bytes());
}

#[test]
fn safe_seq_follows_when_nothing_happens_and_when_much_does() {
    let fs = MemFs::default();
    let safe_seq = || u64::from_le_bytes(fs.bytes(&path("telemetry.safe_seq")).unwrap().try_into().unwrap());
    let options = Options { publish_every: 10, ..timeless() };
    let (wal, _) = Wal::open_on(dir(&fs), &options).unwrap();
    for i in 0..25 {
        wal.append(batch(&format!("b{i}"), 1)).wait().unwrap();
    }
    assert!((20..=25).contains(&safe_seq()), "{}", safe_seq());
    wal.close().unwrap();
    let options = Options { publish_idle: Duration::from_millis(5), ..Options::default() };
    let (wal, _) = Wal::open_on(dir(&fs), &options).unwrap();
    wal.append(batch("idle", 3)).wait().unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while safe_seq() != 28 {
        assert!(Instant::now() < patience, "never published");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn acks_and_the_end_are_futures() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let wal = Arc::new(wal);
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let wal = Arc::clone(&wal);
            runtime.spawn(async move { wal.append(batch(&format!("t{i}"), 2)).await.unwrap() })
        })
        .collect();
    let end = runtime.spawn(wal.end());
    let mut seqs: Vec<u64> = tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=400).collect::<Vec<_>>());
    wal.close().unwrap();
    runtime.block_on(end).unwrap().unwrap();
}

#[test]
fn nothing_is_acknowledged_once_somebody_has_taken_or_changed_the_files() {
    type Attack = (&'static str, fn(&Path));
    let attacks: [Attack; 4] = [
        ("`telemetry.wal` was removed or replaced", |dir| fs::remove_file(dir.join("telemetry.wal")).unwrap()),
        ("`telemetry.wal` was removed or replaced", |dir| {
            fs::copy(dir.join("telemetry.wal"), dir.join("copy")).unwrap();
            fs::rename(dir.join("copy"), dir.join("telemetry.wal")).unwrap();
        }),
        ("`telemetry.wal` was changed by somebody else", |dir| {
            fs::OpenOptions::new().write(true).open(dir.join("telemetry.wal")).unwrap().set_len(10).unwrap();
        }),
        ("`wal.lock` was removed or replaced", |dir| fs::remove_file(dir.join("wal.lock")).unwrap()),
    ];
    for (message, attack) in attacks {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("wal");
        let (wal, _) = Wal::open(&dir, Options::default()).unwrap();
        wal.append(batch("a", 1)).wait().unwrap();
        attack(&dir);
        let error = wal.append(batch("b", 1)).wait().unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().ends_with("; end whoever else touches its files, then restart"), "{error}");
        assert!(wal.append(batch("c", 1)).wait().is_err(), "and nothing after it");
    }
}

#[test]
fn a_log_whose_directory_is_away_says_to_put_it_back_and_touches_nothing_in_its_place() {
    let away = |dir: &Path| fs::rename(dir, dir.with_extension("away")).unwrap();
    let replaced = |dir: &Path| {
        away(dir);
        let (other, _) = Wal::open(dir, Options::default()).unwrap();
        other.append(batch("other", 9)).wait().unwrap();
    };
    let attacks: [&dyn Fn(&Path); 5] = [
        &away,
        &|dir| fs::remove_dir_all(dir).unwrap(),
        &|dir| {
            away(dir);
            fs::create_dir(dir).unwrap();
        },
        &|dir| {
            away(dir);
            fs::write(dir, b"a file").unwrap();
        },
        &replaced,
    ];
    for (attack, is_closed) in attacks.into_iter().flat_map(|attack| [(attack, false), (attack, true)]) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("wal");
        let (wal, _) = Wal::open(&dir, timeless()).unwrap();
        for text in ["a", "b"] {
            wal.append(batch(text, 1)).wait().unwrap();
        }
        attack(&dir);
        let files = || -> Vec<_> {
            let entries = fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path());
            entries.map(|path| (fs::read(&path).unwrap(), path)).collect()
        };
        let before = files();
        // One that has not said yet what is committed says it when it is closed.
        let error = if is_closed { wal.close().unwrap_err() } else { wal.append(batch("c", 1)).wait().unwrap_err() };
        let expected = format!(
            "log at `{}` stopped: its directory was moved, removed or replaced; put it back before a restart, for a start \
             without it begins a new log",
            dir.display()
        );
        assert_eq!((error.to_string(), error.class()), (expected, ErrorClass::Unavailable));
        assert!(wal.append(batch("d", 1)).wait().is_err(), "and nothing after it");
        assert_eq!(files(), before);
    }
}

#[test]
fn what_is_in_the_way_of_safe_seq_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { publish_idle: Duration::ZERO, ..Options::default() };
    let (wal, _) = Wal::open(dir.path(), options).unwrap();
    fs::create_dir(dir.path().join("telemetry.safe_seq.tmp")).unwrap();
    // The first frame of a log is acknowledged only with it.
    let error = wal.append(batch("a", 1)).wait().unwrap_err().to_string();
    let file = dir.path().join("telemetry.safe_seq.tmp");
    let end = format!("attempt to create `{}`: it is not a regular file; move that away, then restart", file.display());
    assert!(error.ends_with(&end), "{error}");
}

#[test]
fn a_second_writer_behind_a_removed_lock_loses_nothing_and_ends_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Wal::open(dir.path(), Options::default()).unwrap();
    first.append(batch("a", 2)).wait().unwrap();
    fs::remove_file(dir.path().join("wal.lock")).unwrap();
    let (second, _) = Wal::open(dir.path(), Options::default()).unwrap();
    assert_eq!(second.append(batch("b", 2)).wait().unwrap(), 3..=4);
    assert!(first.append(batch("c", 2)).wait().is_err());
    second.append(batch("d", 1)).wait().unwrap();
    second.close().unwrap();
    let seqs: Vec<_> = Reader::open(dir.path()).unwrap().map(|record| record.unwrap().seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
}
