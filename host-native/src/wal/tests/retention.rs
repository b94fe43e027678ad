//! What is deleted, what of it is written down, and what a crash leaves of it.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    batch, dir,
    memfs::{Failing, Keep, MemFs},
    open, path, records, timeless,
};
use crate::{
    ErrorClass,
    key::PrivateKey,
    wal::{
        Checkpoint, CheckpointError, Keeper, Options, Past, Plan, Prune, Reader, Record, Retention, Signing, Undrained,
        Wal, WalError,
        dir::Dir,
        doctor::{doctor_on, verify_on},
        fs::{RealFs, append_line},
        plan_on,
        segment::Segment,
        unix_ns, verify,
    },
};

const ANY: Retention = Retention { bytes: Some(1), days: None, prune: Prune::Any };
const DRAINED: Retention = Retention { prune: Prune::Drained, ..ANY };

fn undrained(fs: &MemFs) -> Result<Undrained, WalError> {
    Undrained::open_on(dir(fs))
}

/// A log of five batches of two, each in a segment of its own, closed.
fn log() -> (MemFs, Vec<Record>) {
    let fs = MemFs::with_segments(1);
    let (wal, _) = open(&fs).unwrap();
    for i in 0..5 {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
    }
    wal.close().unwrap();
    let records = records(&fs);
    assert_eq!((dir(&fs).sealed().unwrap(), records.len()), (vec![1, 3, 6, 9], 14));
    (fs, records)
}

fn prune(fs: &MemFs, retention: &Retention) -> Result<Plan, WalError> {
    let (wal, _) = open(fs)?;
    let plan = wal.prune(retention, "test")?;
    wal.close()?;
    Ok(plan)
}

/// Takes so many frames, and says that they were acknowledged.
fn drain(fs: &MemFs, frames: usize) {
    let mut undrained = undrained(fs).unwrap();
    for _ in 0..frames {
        undrained.next_frame().unwrap().unwrap();
    }
    undrained.advance().unwrap();
}

/// Changes what `telemetry.pos` says.
fn change_position(fs: &MemFs, from: &str, to: &str) {
    let position = String::from_utf8(fs.bytes(&path("telemetry.pos")).unwrap()).unwrap();
    let changed = position.replace(from, to);
    let body = changed.split(",\"crc\"").next().unwrap();
    let changed = format!("{body},\"crc\":\"{:08x}\"}}", crc32c::crc32c(body.as_bytes()));
    fs.put(&path("telemetry.pos"), Some(changed.into_bytes()));
}

#[test]
fn what_is_deleted_is_in_the_log_and_the_rest_still_holds() {
    let (fs, before) = log();
    let plan = prune(&fs, &ANY).unwrap();
    let lasts: Vec<_> = plan.pruned.iter().map(|pruned| (pruned.first, pruned.last, pruned.past)).collect();
    let past = Past::RetainBytes;
    assert_eq!(lasts, [(1, 2, past), (3, 5, past), (6, 8, past), (9, 11, past)]);
    let now = records(&fs);
    assert_eq!(now[..3], before[11..]);
    // The segment was full: the frames of the deletion are in the next.
    let attrs: Vec<_> = now[3..].iter().map(|record| record.attrs.as_str()).collect();
    assert!(attrs[0].starts_with("{\"event\":\"wal_rotated\""), "{attrs:?}");
    assert_eq!(
        attrs[1],
        format!(
            "{{\"event\":\"wal_pruned\",\"first\":1,\"last\":2,\"hash\":\"{}\",\"bytes\":{},\"why\":\"retain_bytes\",\
             \"drained\":false,\"by\":\"test\"}}",
            before[1].hash(),
            before[..2].iter().map(|record| record.payload.len() + 4).sum::<usize>()
        )
    );
    let report = verify_on(&dir(&fs)).unwrap();
    assert!(report.holds() && report.fault.is_none());
    assert_eq!((report.first, report.frames, report.pruned), (12, now.len() as u64, Some(past)));
    assert!(now.iter().all(|record| record.wal_id == before[0].wal_id), "the log is called as before");
    // One more than was written down.
    fs.put(&path(&Segment::Sealed(12).to_string()), None);
    assert!(matches!(open(&fs), Err(WalError::StartLost { first: 15, .. })));
    assert_eq!(verify_on(&dir(&fs)).unwrap().error.unwrap().class(), ErrorClass::Damaged);
}

#[test]
fn a_plan_fails_where_pruning_would_and_changes_nothing() {
    let (fs, _) = log();
    let put = |name: &str, bytes: Option<Vec<u8>>| {
        let damaged = fs.snapshot();
        damaged.put(&path(name), bytes);
        damaged
    };
    let sealed = |first| Segment::Sealed(first).to_string();
    let live = fs.bytes(&path("telemetry.wal")).unwrap();
    let mut logs = vec![
        fs.snapshot(),
        put("telemetry.wal", Some([&live[..], b"torn"].concat())),
        put("telemetry.wal", Some(live[..live.len() - 1].to_vec())),
        put("telemetry.wal", None),
        put("telemetry.safe_seq", None),
        put("telemetry.safe_seq", Some(b"7".to_vec())),
        put(&sealed(1), None),
        put(&sealed(3), None),
        put(&sealed(4), Some(vec![])),
        put(&sealed(9999), Some(vec![])),
    ];
    for (name, bytes) in fs.files("telemetry") {
        for at in (0..bytes.len()).step_by(13) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            logs.push(put(&name.file_name().unwrap().to_string_lossy(), Some(flipped)));
        }
    }
    let mut failed = 0;
    for fs in logs {
        let before = fs.files("");
        let planned = plan_on(&dir(&fs), &ANY).map(|plan| plan.pruned).map_err(|error| error.to_string());
        assert_eq!(fs.files(""), before);
        let pruned = prune(&fs, &ANY).map(|plan| plan.pruned).map_err(|error| error.to_string());
        assert_eq!(planned, pruned);
        failed += usize::from(planned.is_err());
    }
    assert!(failed > 100, "{failed}");
    let none = MemFs::default();
    assert!(matches!(plan_on(&dir(&none), &ANY), Err(WalError::NoLog { .. })));
    let (wal, _) = open(&fs).unwrap();
    assert_eq!(plan_on(&dir(&fs), &ANY).unwrap(), wal.prune(&ANY, "test").unwrap(), "beside a writer, too");
}

#[test]
fn only_what_is_past_a_bound_goes_and_only_what_was_drained() {
    let (fs, records) = log();
    let live = fs.bytes(&path("telemetry.wal")).unwrap().len() as u64;
    let bytes: Vec<u64> = [1, 3, 6, 9].map(|first| dir(&fs).bytes(Segment::Sealed(first)).unwrap()).to_vec();
    let total = live + bytes.iter().sum::<u64>();
    let firsts = |retention: &Retention, now: u64| {
        let plan = Plan::of(&dir(&fs), retention, now).unwrap();
        (plan.pruned.iter().map(|pruned| pruned.first).collect::<Vec<_>>(), plan.undrained)
    };
    let now = unix_ns();
    let keep = |bytes| Retention { bytes: Some(bytes), ..ANY };
    assert_eq!(firsts(&Retention { bytes: None, ..ANY }, now), (vec![], 0), "without a bound everything is kept");
    assert_eq!(firsts(&keep(total), now), (vec![], 0));
    assert_eq!(firsts(&keep(total - 1), now), (vec![1], 0));
    assert_eq!(firsts(&keep(total - bytes[0]), now), (vec![1], 0));
    assert_eq!(firsts(&keep(total - bytes[0] - 1), now), (vec![1, 3], 0));
    let days = Retention { bytes: None, days: Some(2), prune: Prune::Any };
    let day = 86_400_000_000_000;
    assert_eq!(firsts(&days, now + day), (vec![], 0));
    assert_eq!(firsts(&days, now + 2 * day + day / 2), (vec![1, 3, 6, 9], 0));
    assert_eq!(firsts(&days, 0), (vec![], 0), "a clock that stepped back deletes nothing");

    assert_eq!(firsts(&DRAINED, now), (vec![], 4));
    assert_eq!(
        firsts(&Retention { bytes: Some(total - 1), ..DRAINED }, now),
        (vec![], 1),
        "no more than would go wait"
    );
    for (drained, expected) in [(1, (vec![], 4)), (2, (vec![1], 3)), (7, (vec![1, 3], 2)), (14, (vec![1, 3, 6, 9], 0))]
    {
        fs.put(&path("telemetry.pos"), None);
        drain(&fs, drained);
        assert_eq!(firsts(&DRAINED, now), expected, "{drained} frames were drained");
    }
    // The numbers of another log, as after a doctor, say nothing of this one.
    change_position(&fs, &records[0].wal_id, "0123456789012345678901");
    assert_eq!(firsts(&DRAINED, now), (vec![], 4));
    fs.put(&path("telemetry.pos"), Some(b"{}".to_vec()));
    assert!(matches!(Plan::of(&dir(&fs), &DRAINED, now), Err(WalError::Position { .. })));
}

#[test]
fn a_position_of_a_copy_that_was_written_on_differently_marks_nothing_as_drained() {
    let (fs, _) = log();
    let other = fs.snapshot();
    for (fs, text) in [(&fs, "here"), (&other, "there")] {
        let (wal, _) = open(fs).unwrap();
        wal.append(batch(text, 2)).wait().unwrap();
        wal.append(batch(text, 2)).wait().unwrap();
        wal.close().unwrap();
    }
    drain(&other, 19);
    fs.put(&path("telemetry.pos"), other.bytes(&path("telemetry.pos")));
    assert_eq!(prune(&other, &DRAINED).unwrap().pruned.len(), 6);
    let plan = prune(&fs, &DRAINED).unwrap();
    assert_eq!((plan.pruned.len(), plan.undrained), (0, 6));
}

#[test]
fn what_was_drained_after_a_doctor_is_pruned_under_either_name() {
    let (fs, before) = log();
    let live = path("telemetry.wal");
    let mut bytes = fs.bytes(&live).unwrap();
    let end = bytes.len() - 10;
    bytes[end] ^= 1;
    fs.put(&live, Some(bytes));
    doctor_on(&dir(&fs)).unwrap();
    let (wal, _) = open(&fs).unwrap();
    wal.append(batch("next", 2)).wait().unwrap();
    wal.close().unwrap();
    let now = records(&fs);
    assert_ne!(now.last().unwrap().wal_id, before[0].wal_id);
    drain(&fs, now.len());
    assert!(prune(&fs, &DRAINED).unwrap().pruned.len() >= 4);
    assert!(verify_on(&dir(&fs)).unwrap().holds());
}

#[test]
fn a_segment_that_cannot_be_deleted_is_written_down_once() {
    let (fs, _) = log();
    let (wal, _) = open(&fs.clone().resized(100_000)).unwrap();
    fs.fail_removes(true);
    assert!(wal.prune(&ANY, "test").is_err());
    let said = records(&fs).len();
    assert!(wal.prune(&ANY, "test").is_err());
    assert_eq!(records(&fs).len(), said);
    fs.fail_removes(false);
    assert_eq!(wal.prune(&ANY, "test").unwrap().pruned.len(), 4);
    wal.close().unwrap();
    assert_eq!(dir(&fs).sealed().unwrap(), [0; 0]);
    assert!(verify_on(&dir(&fs)).unwrap().holds());
}

#[test]
fn a_time_that_does_not_fit_makes_nothing_old() {
    let (fs, _) = log();
    let second = path(&Segment::Sealed(3).to_string());
    let text = fs.bytes(&second).unwrap();
    let at = text.windows(6).position(|bytes| bytes == b"\"ts\":\"").unwrap() + 6;
    let mut changed = text.clone();
    changed[at..at + 4].copy_from_slice(b"1969");
    let len = u32::from_be_bytes(*changed.first_chunk().unwrap()) as usize;
    let body = 4 + len - 18;
    let crc = format!("{:08x}", crc32c::crc32c(&changed[4..body]));
    changed[body + 8..body + 16].copy_from_slice(crc.as_bytes());
    fs.put(&second, Some(changed));
    let days = Retention { bytes: None, days: Some(1), prune: Prune::Any };
    assert!(Plan::of(&dir(&fs), &days, u64::MAX).unwrap().pruned.is_empty());
}

#[test]
fn a_drain_goes_on_after_what_it_drained_was_pruned_and_stops_where_something_else_was() {
    for drained in [2, 5, 8, 9, 11] {
        let (fs, before) = log();
        drain(&fs, drained);
        prune(&fs, &DRAINED).unwrap();
        let mut undrained = undrained(&fs).unwrap();
        let (id, next) = undrained.next_frame().unwrap().unwrap();
        assert_eq!((next.seq, id), (drained as u64 + 1, format!("{}:{}", before[0].wal_id, drained + 1)));
    }
    let (fs, _) = log();
    drain(&fs, 2);
    prune(&fs, &ANY).unwrap();
    let error = undrained(&fs).unwrap_err();
    assert!(error.to_string().contains("the frames between 2 and 12 were pruned"), "{error}");
    let (fs, before) = log();
    drain(&fs, 11);
    prune(&fs, &DRAINED).unwrap();
    change_position(&fs, &before[10].hash()[..5], "_____");
    let error = undrained(&fs).unwrap_err();
    assert!(error.to_string().contains("frame 12 follows another frame than was drained"), "{error}");
    change_position(&fs, "\"seq\":11", "\"seq\":18446744073709551615");
    let error = undrained(&fs).unwrap_err();
    assert!(error.to_string().contains("the log ends before it"), "{error}");
    assert!(Plan::of(&dir(&fs), &DRAINED, unix_ns()).unwrap().pruned.is_empty());
}

#[test]
fn a_drain_beside_pruning_gets_every_frame_and_a_reader_that_is_overtaken_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), Options { segment_bytes: 1, ..timeless() }).unwrap();
    wal.append(batch("first", 1)).wait().unwrap();
    let (mut drain, mut slow) = (Undrained::open(home.path()).unwrap(), Reader::open(home.path()).unwrap());
    let mut next = 1;
    for i in 0..40 {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
        while let Some((_, record)) = drain.next_frame().unwrap() {
            assert_eq!(record.seq, next);
            next += 1;
        }
        drain.advance().unwrap();
        wal.prune(&DRAINED, "test").unwrap();
    }
    assert!(next > 100, "{next}");
    let error = slow.find_map(Result::err).unwrap();
    assert!(matches!(error, WalError::Pruned { .. }), "{error}");
    wal.close().unwrap();
    assert!(verify(home.path()).unwrap().holds());
}

#[test]
fn a_reader_of_which_only_the_live_segment_is_left_is_told_so() {
    let (fs, before) = log();
    let mut reader = Reader::open_on(dir(&fs)).unwrap();
    assert_eq!(reader.next_record().unwrap().as_ref(), Some(&before[0]));
    prune(&fs.clone().resized(100_000), &ANY).unwrap();
    assert_eq!(dir(&fs).sealed().unwrap(), [0; 0]);
    assert_eq!(reader.next_record().unwrap().as_ref(), Some(&before[1]));
    let error = reader.next_record().unwrap_err();
    assert!(matches!(error, WalError::Pruned { seq: 3, first: 12, .. }), "{error}");
}

#[test]
fn pruning_survives_every_failure() {
    for failing in [Failing::Error, Failing::Short, Failing::Torn, Failing::Crash] {
        let mut runs = 0;
        for nth in 1.. {
            let (fs, before) = log();
            drain(&fs, 8);
            let (wal, _) = open(&fs).unwrap();
            fs.fail(nth, failing);
            let done = wal.prune(&DRAINED, "test");
            drop(wal);
            for keep in [Keep::All, Keep::Synced, Keep::Prefix(nth), Keep::Mixed(nth)] {
                let after = fs.after(keep);
                let what = format!("{failing:?} {nth} {keep:?}");
                if let Err(error) = open(&after).map(drop) {
                    // A write of which a part was kept, as without segments.
                    let may_be_torn = failing == Failing::Torn || matches!(keep, Keep::Mixed(_));
                    assert!(may_be_torn && error.class() == ErrorClass::Damaged, "{what}: {error}");
                    continue;
                }
                let report = verify_on(&dir(&after)).unwrap();
                assert!(report.holds() && report.fault.is_none(), "{what}: {report:?}");
                let now = records(&after);
                let first = usize::try_from(now[0].seq).unwrap();
                assert!([1, 3, 6, 9].contains(&first) && (done.is_err() || first == 9), "{what}: {first}");
                assert_eq!(now[..=before.len() - first], before[first - 1..], "{what}");
                let mut undrained = undrained(&after).unwrap();
                assert_eq!(undrained.next_frame().unwrap().unwrap().1.seq, 9, "{what}");
                drop(undrained);
                // What is left is done the next time.
                prune(&after, &DRAINED).unwrap();
                assert_eq!(records(&after)[0].seq, 9, "{what}");
            }
            if !fs.fired() {
                break;
            }
            runs += 1;
        }
        assert!(runs > 20, "{failing:?}: {runs} operations are too few to mean anything");
    }
}

#[test]
fn the_doctor_says_where_the_log_begins() {
    // Pruned, then damaged before the frame that says so.
    let (fs, _) = log();
    prune(&fs, &Retention { bytes: Some(2500), ..ANY }).unwrap();
    let first = dir(&fs).sealed().unwrap()[0];
    assert!(first > 1);
    let segment = path(&Segment::Sealed(first).to_string());
    let mut bytes = fs.bytes(&segment).unwrap();
    let end = bytes.len() - 10;
    bytes[end] ^= 1;
    fs.put(&segment, Some(bytes));
    // Or gone without a word.
    let (gone, _) = log();
    gone.put(&path(&Segment::Sealed(1).to_string()), None);
    let committed = verify_on(&dir(&fs)).unwrap().committed;
    for (fs, lost) in [(fs, Some(committed)), (gone, None)] {
        assert_eq!(open(&fs).unwrap_err().class(), ErrorClass::Damaged);
        let doctored = doctor_on(&dir(&fs)).unwrap();
        // What was pruned is not counted as lost, where the word of it may be after the damage.
        assert_eq!(doctored.lost, lost.map_or(2, |committed| committed - doctored.last));
        let (wal, _) = open(&fs).unwrap();
        wal.append(batch("next", 1)).wait().unwrap();
        wal.close().unwrap();
        let report = verify_on(&dir(&fs)).unwrap();
        assert!(report.holds() && report.first > 1, "{report:?}");
        assert_eq!(report.pruned, Some(Past::Gone));
    }
}

#[test]
fn checkpoints_of_what_was_pruned_are_passed_over_and_the_last_still_counts() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), Options { segment_bytes: 1, ..timeless() }).unwrap();
    let mut checkpoints = Vec::new();
    for i in 0..4 {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
        checkpoints.push(Checkpoint::of(home.path()).unwrap());
    }
    assert_eq!(Checkpoint::check(&checkpoints, home.path()).unwrap().held, 4);
    let signed_before = checkpoints.clone();
    wal.prune(&Retention { bytes: Some(2000), ..ANY }, "test").unwrap();
    wal.close().unwrap();
    // That it was deleted is signed by none of them, as where somebody else deletes and says so.
    let error = Checkpoint::check(&signed_before, home.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Unsigned { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Damaged);
    let error = Checkpoint::check(&signed_before[..1], home.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::NotHeld { seq: 2, .. }), "the newest is not passed over: {error}");
    checkpoints.push(Checkpoint::of(home.path()).unwrap());
    let first = Reader::open(home.path()).unwrap().next_record().unwrap().unwrap().seq;
    let known = checkpoints.iter().filter(|checkpoint| checkpoint.seq + 1 >= first).count();
    assert!((2..5).contains(&known), "{first}");
    let checked = Checkpoint::check(&checkpoints, home.path()).unwrap();
    assert_eq!((checked.held, checked.passed_over), (known, 5 - known));
    let boundary = checkpoints.iter_mut().find(|checkpoint| checkpoint.seq + 1 == first).unwrap();
    boundary.hash.replace_range(..2, "__");
    let error = Checkpoint::check(&checkpoints, home.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::NotHeld { .. }), "{error}");
}

#[test]
fn a_keeper_signs_what_is_sealed_and_the_end_and_prunes() {
    let home = tempfile::tempdir().unwrap();
    let (log, file) = (home.path().join("wal"), home.path().join("checkpoints"));
    let key = PrivateKey::generate().unwrap();
    let keys = gate_core::TrustedKeys::new([key.public().clone()], 1).unwrap();
    let (wal, _) = Wal::open(&log, Options { segment_bytes: 1, ..timeless() }).unwrap();
    let wal = Arc::new(wal);
    let keeper = Keeper::start(Arc::clone(&wal), ANY, Some(Signing { key, file: file.clone() }), "test").unwrap();
    for i in 0..3 {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    while !file.exists() || log.join(Segment::Sealed(1).to_string()).exists() {
        assert!(Instant::now() < deadline, "nothing was signed or pruned");
        thread::sleep(Duration::from_millis(20));
    }
    // At once: what says that it was deleted was signed before it was.
    Checkpoint::check(&Checkpoint::read_all(&file, &keys).unwrap(), &log).unwrap();
    wal.append(batch("last", 1)).wait().unwrap();
    wal.close().unwrap();
    drop(keeper);
    let checkpoints = Checkpoint::read_all(&file, &keys).unwrap();
    let last = Reader::open(&log).unwrap().last().unwrap().unwrap();
    assert!(checkpoints.len() > 1);
    assert_eq!(checkpoints.last().unwrap().hash, last.hash());
    assert!(Checkpoint::check(&checkpoints, &log).unwrap().held >= 1);
    assert!(verify(&log).unwrap().holds());
}

#[test]
fn a_keeper_deletes_nothing_that_it_could_not_sign() {
    let home = tempfile::tempdir().unwrap();
    let (log, file) = (home.path().join("wal"), home.path().join("later").join("checkpoints"));
    let key = PrivateKey::generate().unwrap();
    let keys = gate_core::TrustedKeys::new([key.public().clone()], 1).unwrap();
    let options = Options { segment_bytes: 1, ..timeless() };
    // What an earlier process has sealed, and not signed.
    let (wal, _) = Wal::open(&log, options.clone()).unwrap();
    for i in 0..3 {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
    }
    wal.close().unwrap();
    let sealed = last_sealed(&log);
    let (wal, _) = Wal::open(&log, options).unwrap();
    let wal = Arc::new(wal);
    let keeper = Keeper::start(Arc::clone(&wal), ANY, Some(Signing { key, file: file.clone() }), "test").unwrap();
    thread::sleep(Duration::from_secs(3));
    assert!(log.join(Segment::Sealed(1).to_string()).exists(), "it was deleted unsigned");
    std::fs::create_dir(home.path().join("later")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while log.join(Segment::Sealed(sealed).to_string()).exists() {
        assert!(Instant::now() < deadline, "nothing was pruned");
        thread::sleep(Duration::from_millis(20));
    }
    wal.close().unwrap();
    drop(keeper);
    let checkpoints = Checkpoint::read_all(&file, &keys).unwrap();
    assert!(checkpoints[0].seq >= sealed, "what was there at the start is signed first");
    Checkpoint::check(&checkpoints, &log).unwrap();
}

fn last_sealed(log: &Path) -> u64 {
    *Dir::new(Arc::new(RealFs), log).sealed().unwrap().last().unwrap()
}

#[test]
fn a_line_that_a_crash_cut_short_is_cut_off_and_a_pipe_is_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("lines");
    let torn = "x".repeat(10_000);
    for whole in ["", "a\n", "a\nb\n", &format!("{torn}\n")] {
        for torn in ["", "x", &torn] {
            std::fs::write(&file, format!("{whole}{torn}")).unwrap();
            append_line(&RealFs, &file, b"new\n").unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{whole}new\n"));
        }
    }
    let pipe = home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = append_line(&RealFs, &pipe, b"new\n").unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}
