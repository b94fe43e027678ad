//! A log in many segments: sealed, read, damaged, and taken away.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use gate_core::frame::Kind;

use super::{
    batch, dir, frame, killed_log_of,
    memfs::{Failing, MemFs},
    open, path, records, timeless,
};
use crate::{
    ErrorClass,
    wal::{
        Opened, Options, Prune, Reader, Record, Retention, Undrained, Wal, WalError,
        codec::link_to,
        dir::Dir,
        doctor::{diagnose_on, doctor_on, verify_on},
        fs::RealFs,
        segment::Segment,
        verify,
    },
};

/// The files of the segments, oldest first.
fn segments(fs: &MemFs) -> Vec<PathBuf> {
    dir(fs)
        .sealed()
        .unwrap()
        .into_iter()
        .map(Segment::Sealed)
        .chain([Segment::Live])
        .map(|segment| path(&segment.to_string()))
        .collect()
}

/// What a reader stops at.
fn first_error(fs: &MemFs) -> Option<WalError> {
    Reader::open_on(dir(fs)).unwrap().find_map(Result::err)
}

/// A log of several segments with two or three batches in each, closed in order.
fn closed_log() -> (MemFs, Vec<Record>) {
    let (fs, _) = killed_log_of(1000, 14);
    open(&fs).unwrap().0.close().unwrap();
    let records = records(&fs);
    assert!(segments(&fs).len() > 2);
    (fs, records)
}

#[test]
fn a_segment_is_sealed_when_it_is_full_and_the_chain_goes_on_in_the_next() {
    let (fs, records) = closed_log();
    let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=records.len() as u64).collect::<Vec<_>>());
    for two in records.windows(2) {
        assert_eq!(two[0].hash(), two[1].prev);
        assert_eq!(two[0].wal_id, two[1].wal_id);
    }
    assert_eq!(records[0].wal_id, records[0].hash()[..22]);
    let sealed = dir(&fs).sealed().unwrap();
    assert_eq!(sealed[0], 1);
    for first in &sealed[1..] {
        let begins = &records[usize::try_from(*first).unwrap() - 1];
        let attrs = format!("{{\"event\":\"wal_rotated\",\"wal_id\":\"{}\"}}", begins.wal_id);
        assert_eq!(
            (begins.kind, begins.audit_id.as_str(), &begins.attrs),
            (Kind::Lifecycle, &*format!("wal-{first}"), &attrs)
        );
    }
    let report = verify_on(&dir(&fs)).unwrap();
    let bytes: usize = segments(&fs).iter().map(|path| fs.bytes(path).unwrap().len()).sum();
    assert!(report.holds() && report.fault.is_none());
    assert_eq!(
        (report.first, report.frames, report.sealed, report.bytes),
        (1, seqs.len() as u64, sealed.len(), bytes as u64)
    );
    for segment in &segments(&fs)[..sealed.len()] {
        let bytes = fs.bytes(segment).unwrap().len();
        assert!((1000..4000).contains(&bytes), "{bytes}");
    }
    assert_eq!(fs.bytes(&path("telemetry-00000000000000000001.wal")), fs.bytes(&segments(&fs)[0]));
}

#[test]
fn a_log_that_is_full_when_it_is_opened_is_sealed_by_the_next_append() {
    let (fs, _) = super::killed_log(9);
    let fs = fs.resized(100);
    let (wal, opened) = open(&fs).unwrap();
    assert_eq!(opened, Opened::Clean { last_seq: 9 });
    assert_eq!(wal.append(batch("next", 2)).wait().unwrap(), 11..=12);
    wal.close().unwrap();
    assert_eq!(dir(&fs).sealed().unwrap(), [1]);
    assert_eq!(records(&fs).len(), 12);
}

#[test]
fn a_batch_that_must_be_beside_a_frame_is_given_back_once_its_segment_is_full() {
    let fs = MemFs::with_segments(2000);
    let (wal, _) = open(&fs).unwrap();
    let first = *wal.append(batch("facts", 1)).wait().unwrap().start();
    let mut beside = 0;
    let given_back = loop {
        match wal.append_beside(first, batch("decision", 1)) {
            Ok(ack) => drop(ack.wait().unwrap()),
            Err(batch) => break batch,
        }
        beside += 1;
    };
    assert!(beside > 2);
    assert_eq!(given_back, batch("decision", 1));
    assert!(dir(&fs).sealed().unwrap().is_empty(), "it seals nothing");
    let again = *wal.append(batch("facts", 1)).wait().unwrap().start();
    assert!(wal.append_beside(first, batch("decision", 1)).is_err());
    assert!(wal.append_beside(again, batch("decision", 1)).unwrap().wait().is_ok());
    wal.close().unwrap();
    assert_eq!(dir(&fs).sealed().unwrap(), [1]);
}

#[test]
fn no_damage_to_a_sealed_segment_is_accepted_repaired_or_read() {
    let (fs, original) = closed_log();
    let fails = |damaged: &MemFs, what: &str| {
        let before = damaged.files("telemetry");
        let report = verify_on(&dir(damaged)).unwrap();
        assert!(!report.holds() && report.fault.is_some(), "{what}");
        let error = open(damaged).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Damaged, "{what}: {error}");
        assert_eq!(damaged.files("telemetry"), before, "{what}: a failed open changed a byte");
        let mut read = 0;
        let error = Reader::open_on(dir(damaged)).unwrap().find_map(|record| match record {
            Ok(record) => {
                assert_eq!(record, original[read], "{what}");
                read += 1;
                None
            }
            Err(error) => Some(error),
        });
        assert_eq!(error.expect(what).class(), ErrorClass::Damaged, "{what}");
    };
    let sealed = segments(&fs);
    let sealed = &sealed[..sealed.len() - 1];
    for (number, segment) in sealed.iter().enumerate() {
        let bytes = fs.bytes(segment).unwrap();
        for at in 0..bytes.len() {
            // Each bit is flipped somewhere; every bit of every byte of one file is flipped elsewhere.
            let mut changed = bytes.clone();
            changed[at] ^= 1 << ((at + number) % 8);
            let damaged = fs.snapshot();
            damaged.put(segment, Some(changed));
            fails(&damaged, &format!("byte {at} of {}", segment.display()));
            if at % 7 == number {
                let damaged = fs.snapshot();
                damaged.put(segment, Some(bytes[..at].to_vec()));
                fails(&damaged, &format!("{} cut at {at}", segment.display()));
            }
        }
        for odd in [0, b'x'] {
            let damaged = fs.snapshot();
            damaged.put(segment, Some([&bytes[..], &[odd]].concat()));
            fails(&damaged, &format!("{} and one byte", segment.display()));
        }
        if number > 0 {
            let damaged = fs.snapshot();
            damaged.put(segment, None);
            fails(&damaged, &format!("{} is gone", segment.display()));
        }
    }
}

#[test]
fn a_segment_in_the_place_of_another_is_refused() {
    let (fs, _) = closed_log();
    let all = segments(&fs);
    for (from, to) in [(0, 1), (1, 2), (2, 1), (all.len() - 1, 1), (1, all.len() - 1)] {
        let damaged = fs.snapshot();
        damaged.put(&all[to], fs.bytes(&all[from]));
        let error = open(&damaged).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Damaged, "{from} as {to}: {error}");
    }
    // One frame earlier or later in its name.
    let damaged = fs.snapshot();
    damaged.put(&all[1], None);
    damaged.put(&path(&Segment::Sealed(dir(&fs).sealed().unwrap()[1] + 1).to_string()), fs.bytes(&all[1]));
    assert_eq!(open(&damaged).unwrap_err().class(), ErrorClass::Damaged);
}

#[test]
fn a_log_without_its_first_segment_and_without_a_word_about_it_is_refused() {
    let (fs, original) = closed_log();
    let sealed = dir(&fs).sealed().unwrap();
    for gone in 1..=sealed.len() {
        let damaged = fs.snapshot();
        for first in &sealed[..gone] {
            damaged.put(&path(&Segment::Sealed(*first).to_string()), None);
        }
        let diagnosis = diagnose_on(&dir(&damaged)).unwrap();
        assert_eq!((diagnosis.row, diagnosis.last_good), ("start_lost", original.len() as u64));
        let Err(WalError::StartLost { first, .. }) = open(&damaged) else { panic!("{gone} segments are gone") };
        let report = verify_on(&dir(&damaged)).unwrap();
        assert!(!report.holds());
        assert_eq!((report.first, report.frames), (first, original.len() as u64 + 1 - first));
        let read: Vec<_> = Reader::open_on(dir(&damaged)).unwrap().collect();
        let (end, frames) = read.split_last().unwrap();
        assert!(matches!(end, Err(WalError::StartLost { first: said, .. }) if *said == first), "{end:?}");
        assert_eq!(frames.len() as u64, original.len() as u64 + 1 - first);
        // Whether its writer was killed in the middle of a write, or its mark is lost, too.
        let (torn, unmarked) = (damaged.snapshot(), damaged.snapshot());
        let live = damaged.bytes(&path("telemetry.wal")).unwrap();
        torn.put(&path("telemetry.wal"), Some([&live[..], b"torn"].concat()));
        unmarked.put(&path("telemetry.safe_seq"), None);
        for fs in [damaged, torn, unmarked] {
            let would_lose = diagnose_on(&dir(&fs)).unwrap().would_lose;
            let doctored = doctor_on(&dir(&fs)).unwrap();
            assert_eq!((would_lose, doctored.lost, doctored.kept), (first - 1, first - 1, report.frames));
            let said = records(&fs).pop().unwrap().attrs;
            let row = said.split("\"row\":\"").nth(1).unwrap();
            assert!(
                row.starts_with("start_lost\",\"reason\":\"the log does not begin with its first frame")
                    || row
                        .starts_with("safe_seq_lost\",\"reason\":\"there is a log and no usable `telemetry.safe_seq`"),
                "{said}"
            );
        }
    }
}

#[test]
fn what_a_crash_leaves_of_a_rotation_is_gone_on_from() {
    let (fs, original) = closed_log();
    let last = original.last().unwrap().seq;
    let live = fs.bytes(&path("telemetry.wal")).unwrap();
    let live_first = original.iter().rfind(|record| record.attrs.contains("wal_rotated")).unwrap().seq;
    let safe_seq = |fs: &MemFs, seq: u64| fs.put(&path("telemetry.safe_seq"), Some(seq.to_le_bytes().to_vec()));
    // Sealed, and the next file is not there, or empty.
    for (row, file) in [("rotation", None), ("open", Some(Vec::new()))] {
        let rotating = fs.snapshot();
        rotating.put(&path("telemetry.wal"), file);
        safe_seq(&rotating, live_first - 1);
        assert_eq!(diagnose_on(&dir(&rotating)).unwrap().row, row);
        let (wal, opened) = open(&rotating).unwrap();
        assert_eq!(opened, Opened::Clean { last_seq: live_first - 1 });
        assert_eq!(wal.append(batch("next", 1)).wait().unwrap(), live_first + 1..=live_first + 1);
        wal.close().unwrap();
        let now = records(&rotating);
        assert_eq!(now[..now.len() - 2], original[..now.len() - 2]);
        assert!(verify_on(&dir(&rotating)).unwrap().holds());
        // Once a frame in it was acknowledged, a live file that is gone is a loss.
        rotating.put(&path("telemetry.wal"), None);
        assert!(matches!(open(&rotating), Err(WalError::CommittedLost { .. })));
    }
    // Sealed as a copy: the live file is there twice.
    let twice = fs.snapshot();
    twice.put(&path(&Segment::Sealed(live_first).to_string()), Some(live));
    assert_eq!(open(&twice).unwrap_err().class(), ErrorClass::Damaged);
    assert_eq!(last, original.len() as u64);
}

#[test]
fn the_first_frames_of_a_segment_are_acknowledged_only_once_its_loss_would_be_seen() {
    let fs = MemFs::with_segments(1);
    let (wal, _) = open(&fs).unwrap();
    for i in 0..5 {
        let seq = *wal.append(batch(&format!("b{i}"), 1)).wait().unwrap().end();
        let crashed = fs.snapshot();
        crashed.put(&path("telemetry.wal"), None);
        let error = open(&crashed).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Damaged, "frame {seq}: {error}");
    }
}

/// Appends `batches` of two frames, the segments being tiny.
fn write(dir: &Path, batches: usize) {
    let options = Options { segment_bytes: 2000, ..timeless() };
    let (wal, _) = Wal::open(dir, options).unwrap();
    for i in 0..batches {
        wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
    }
    wal.close().unwrap();
}

#[test]
fn who_follows_a_log_over_rotations_sees_each_frame_once_and_in_order() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), 1);
    let follow = || {
        let mut reader = Reader::open(home.path()).unwrap();
        let (mut next, mut decisions) = (1, 0);
        while decisions < 302 {
            match reader.next_record().unwrap() {
                Some(record) => {
                    assert_eq!(record.seq, next);
                    next += 1;
                    decisions += usize::from(record.kind == Kind::Decision);
                }
                None => thread::yield_now(),
            }
        }
    };
    let drain = || {
        let (mut next, mut decisions) = (1, 0);
        while decisions < 302 {
            // Each frame by a drain that was just begun, or by one that goes on.
            let mut undrained = Undrained::open(home.path()).unwrap();
            for _ in 0..50 {
                let Some((id, record)) = undrained.next_frame().unwrap() else { break };
                assert_eq!((record.seq, id), (next, format!("{}:{next}", record.wal_id)));
                next += 1;
                decisions += usize::from(record.kind == Kind::Decision);
            }
            undrained.advance().unwrap();
        }
    };
    let check = || {
        for _ in 0..10 {
            let report = verify(home.path()).unwrap();
            assert!(report.holds(), "{report:?}");
        }
    };
    thread::scope(|scope| {
        let all = [scope.spawn(follow), scope.spawn(drain), scope.spawn(check)];
        write(home.path(), 150);
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    assert!(Dir::new(Arc::new(RealFs), home.path()).sealed().unwrap().len() > 25);
}

#[test]
fn a_rotation_that_fails_ends_the_log_and_nothing_of_the_batch_is_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), Options { segment_bytes: 1, ..timeless() }).unwrap();
    wal.append(batch("a", 1)).wait().unwrap();
    // What is in the way of the sealed segment cannot be replaced by a file.
    std::fs::create_dir(home.path().join(Segment::Sealed(1).to_string())).unwrap();
    let error = wal.append(vec![frame("b")]).wait().unwrap_err();
    assert!(matches!(&error, WalError::Poisoned { op, .. } if op == "rotation"), "{error}");
    assert!(error.to_string().ends_with(" is in the way; move that away, then restart"), "{error}");
    assert!(wal.append(vec![frame("c")]).wait().is_err());
    drop(wal);
    std::fs::remove_dir(home.path().join(Segment::Sealed(1).to_string())).unwrap();
    let (_wal, opened) = Wal::open(home.path(), Options::default()).unwrap();
    assert_eq!(opened, Opened::Clean { last_seq: 1 });
}

/// A whole frame of the log's own, with the link `prev`.
fn own_frame(seq: u64, prev: &str, attrs: &str) -> Vec<u8> {
    let body = format!(
        "{{\"seq\":{seq},\"ts\":\"2026-01-02T03:04:05.123456789Z\",\"kind\":\"autonomy.lifecycle\",\
         \"audit_id\":\"wal-{seq}\",\"node_id\":null,\"attrs\":{attrs},\"durable\":{},\"prev\":\"{prev}\"",
        seq.saturating_sub(1)
    );
    let payload = format!("{body},\"crc\":\"{:08x}\"}}", crc32c::crc32c(body.as_bytes()));
    [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload.as_bytes()].concat()
}

#[test]
fn no_number_that_a_log_claims_overflows() {
    let rotated = r#"{"event":"wal_rotated","wal_id":"0123456789012345678901"}"#;
    let prev = "A".repeat(43);
    for seq in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
        let fs = MemFs::default();
        fs.put(&path("telemetry.wal"), Some(own_frame(seq, &prev, rotated)));
        fs.put(&path("telemetry.safe_seq"), Some(0_u64.to_le_bytes().to_vec()));
        assert!(!verify_on(&dir(&fs)).unwrap().holds(), "{seq}");
        assert_eq!(open(&fs).unwrap_err().class(), ErrorClass::Damaged);
    }
    for last in [u64::MAX, 0] {
        let fs = MemFs::default();
        let first = own_frame(100, &prev, rotated);
        let hash = String::from_utf8(link_to(&first[4..]).to_vec()).unwrap();
        let pruned = format!(
            r#"{{"event":"wal_pruned","first":1,"last":{last},"hash":"{prev}","bytes":0,"why":"gone","drained":false,"by":"x"}}"#
        );
        fs.put(&path("telemetry.wal"), Some([first, own_frame(101, &hash, &pruned)].concat()));
        fs.put(&path("telemetry.safe_seq"), Some(0_u64.to_le_bytes().to_vec()));
        assert!(matches!(open(&fs), Err(WalError::StartLost { first: 100, .. })));
    }
    let fs = MemFs::default();
    let repaired = format!(
        r#"{{"event":"wal_repaired","tail_number":{},"tail_files":[],"offset":0,"bytes":0,"reason":""}}"#,
        u64::MAX
    );
    fs.put(&path("telemetry.wal"), Some([own_frame(1, &prev, &repaired), vec![1]].concat()));
    fs.put(&path("telemetry.safe_seq"), Some(0_u64.to_le_bytes().to_vec()));
    assert!(matches!(open(&fs).unwrap().1, Opened::Repaired { last_seq: 1, .. }));
}

#[test]
fn a_frame_that_does_not_belong_leaves_no_trace_of_what_it_claims() {
    let fs = MemFs::default();
    let first = own_frame(100, &"A".repeat(43), r#"{"event":"wal_rotated","wal_id":"short"}"#);
    fs.put(&path("telemetry.wal"), Some(first));
    fs.put(&path("telemetry.safe_seq"), Some(9_u64.to_le_bytes().to_vec()));
    let report = verify_on(&dir(&fs)).unwrap();
    assert_eq!((report.first, report.frames), (1, 0));
    doctor_on(&dir(&fs)).unwrap();
    let records = records(&fs);
    assert_eq!((records[0].seq, records.len()), (1, 1));
    assert!(records[0].attrs.contains("wal_doctored"), "{}", records[0].attrs);
}

#[test]
fn the_doctor_names_a_file_that_is_not_of_the_log_and_leaves_the_log_alone() {
    let (fs, original) = closed_log();
    let sealed = dir(&fs).sealed().unwrap();
    let live_first = original.iter().rfind(|record| record.attrs.contains("wal_rotated")).unwrap().seq;
    let stray = |first: u64, bytes: Vec<u8>, fs: &MemFs| {
        let damaged = fs.snapshot();
        let name = Segment::Sealed(first).to_string();
        damaged.put(&path(&name), Some(bytes));
        let error = open(&damaged).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Damaged);
        let before = damaged.files("telemetry");
        let refused = doctor_on(&dir(&damaged)).unwrap_err();
        assert!(matches!(&refused, WalError::Stray { files, .. } if *files == name), "{first}: {refused}");
        assert_eq!(damaged.files("telemetry"), before);
        error.to_string()
    };
    for (first, bytes) in [(live_first, vec![]), (live_first, vec![b'x'; 500]), (9999, vec![]), (9999, vec![b'x'; 500])]
    {
        let message = stray(first, bytes, &fs);
        assert!(message.contains(&Segment::Sealed(first).to_string()), "{message}");
    }
    stray(live_first, fs.bytes(&path("telemetry.wal")).unwrap(), &fs);
    // One that was pruned, and is there again.
    let (wal, _) = open(&fs).unwrap();
    let retention = Retention { bytes: Some(1), days: None, prune: Prune::Any };
    wal.prune(&retention, "test").unwrap();
    wal.close().unwrap();
    let old = path(&Segment::Sealed(sealed[0]).to_string());
    let (whole, _) = closed_log();
    stray(1, whole.bytes(&old).unwrap(), &fs);
}

#[test]
fn a_file_named_as_a_segment_that_begins_nowhere_has_one_verdict() {
    let (fs, original) = closed_log();
    let firsts = dir(&fs).sealed().unwrap();
    let whole = fs.bytes(&path(&Segment::Sealed(firsts[1]).to_string())).unwrap();
    let last = original.last().unwrap().seq;
    let retention = Retention { bytes: Some(1), days: None, prune: Prune::Any };
    let torn = [fs.bytes(&path("telemetry.wal")).unwrap(), vec![0]].concat();
    // Within the first segment, within the second, within the live one, beyond.
    for first in [firsts[0] + 1, firsts[1] + 1, last, 9999] {
        for bytes in [whole.clone(), vec![], vec![b'x'; 500]] {
            for live in [None, Some(torn.clone())] {
                let fs = fs.snapshot();
                let (wal, _) = open(&fs).unwrap();
                let name = Segment::Sealed(first).to_string();
                fs.put(&path(&name), Some(bytes.clone()));
                let expected = format!("log at `/wal` holds without `{name}`: move that away");
                let beside = verify_on(&dir(&fs)).unwrap().error.unwrap();
                let pruning = wal.prune(&retention, "test").unwrap_err();
                let mut reading = vec![first_error(&fs)];
                drop(wal);
                if let Some(live) = live {
                    fs.put(&path("telemetry.wal"), Some(live));
                }
                let before = fs.files("telemetry");
                let report = verify_on(&dir(&fs)).unwrap();
                assert!(!report.holds() && report.fault.unwrap().segment == Segment::Sealed(first));
                let diagnosis = diagnose_on(&dir(&fs)).unwrap();
                assert_eq!(diagnosis.row, "stray", "{first} of {firsts:?}: {diagnosis:?}");
                let doctored = doctor_on(&dir(&fs)).unwrap_err();
                assert_eq!((diagnosis.last_good, diagnosis.committed), (last, last), "nothing is lost");
                assert_eq!(report.frames, last);
                let (report, diagnosis) = (report.error.unwrap(), diagnosis.error.unwrap());
                reading.push(first_error(&fs));
                // A reader never comes to what would begin within a sealed segment.
                assert!(reading.iter().all(|error| error.is_some() == (first >= last)), "{first}: {reading:?}");
                let opening = open(&fs).unwrap_err();
                let errors = [beside, pruning, report, diagnosis, doctored, opening];
                for error in errors.into_iter().chain(reading.into_iter().flatten()) {
                    assert_eq!((error.to_string(), error.class()), (expected.clone(), ErrorClass::Damaged));
                }
                assert_eq!(fs.files("telemetry"), before);
                fs.put(&path(&name), None);
                assert!(open(&fs).is_ok());
            }
        }
    }
    // Two of them are named together, and nothing is given up.
    for [one, other] in [[firsts[0] + 1, 9999], [9998, 9999]] {
        let fs = fs.snapshot();
        let names = [one, other].map(|first| Segment::Sealed(first).to_string());
        for name in &names {
            fs.put(&path(name), Some(whole.clone()));
        }
        let error = doctor_on(&dir(&fs)).unwrap_err();
        assert!(matches!(&error, WalError::Stray { files, .. } if *files == names.join("`, `")), "{error}");
        assert_eq!(first_error(&fs).unwrap().to_string(), error.to_string());
        for name in &names {
            fs.put(&path(name), None);
        }
        assert_eq!(records(&fs), original);
    }
    // Beside a log of one segment, it is where a reader begins.
    let (fs, original) = super::killed_log(9);
    let name = Segment::Sealed(9999).to_string();
    fs.put(&path(&name), Some(vec![]));
    assert!(matches!(first_error(&fs), Some(WalError::Stray { files, .. }) if files == name));
    let diagnosis = diagnose_on(&dir(&fs)).unwrap();
    assert_eq!((diagnosis.row, diagnosis.last_good), ("stray", original.len() as u64));
}

#[test]
fn a_name_that_leads_nowhere_is_an_error_and_not_the_end_of_the_log() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), 10);
    let sealed = Dir::new(Arc::new(RealFs), home.path()).sealed().unwrap();
    for first in [sealed[0], sealed[1]] {
        let segment = home.path().join(Segment::Sealed(first).to_string());
        std::fs::rename(&segment, home.path().join("away")).unwrap();
        std::os::unix::fs::symlink("nowhere", &segment).unwrap();
        let error = verify(home.path()).unwrap_err();
        assert!(error.to_string().contains("leads nowhere"), "{error}");
        std::fs::remove_file(&segment).unwrap();
        std::fs::rename(home.path().join("away"), &segment).unwrap();
    }
    assert!(verify(home.path()).unwrap().holds());
}

#[test]
fn a_rotation_replaces_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), Options { segment_bytes: 1, ..timeless() }).unwrap();
    wal.append(batch("a", 1)).wait().unwrap();
    let there = home.path().join(Segment::Sealed(1).to_string());
    std::fs::write(&there, b"somebody's").unwrap();
    let error = wal.append(vec![frame("b")]).wait().unwrap_err();
    assert!(matches!(&error, WalError::Poisoned { op, .. } if op == "rotation"), "{error}");
    assert!(error.to_string().ends_with(" is in the way; move that away, then restart"), "{error}");
    assert_eq!(std::fs::read(&there).unwrap(), b"somebody's");
}

#[test]
fn what_is_sealed_was_committed_by_every_mark() {
    let mut sealed = 0;
    for nth in 1..40 {
        let fs = MemFs::with_segments(1000);
        let (wal, _) = open(&fs).unwrap();
        let mut last = 0;
        while fs.bytes(&path("telemetry.wal")).unwrap().len() < 1000 {
            last = *wal.append(batch("b", 1)).wait().unwrap().end();
        }
        fs.fail(nth, Failing::Crash);
        let _ = wal.append(batch("next", 1)).wait();
        let crashed = fs.snapshot();
        if crashed.bytes(&path("telemetry.wal")).is_none_or(|live| live.is_empty()) {
            sealed += 1;
            assert_eq!(dir(&crashed).safe_seq().unwrap().value(), last, "operation {nth}");
        }
    }
    assert!(sealed > 1, "{sealed}");
}

#[test]
fn a_segment_has_exactly_its_name_and_sorts_as_its_frames_do() {
    let segments = [1, 2, 10, u64::MAX].map(Segment::Sealed).into_iter().chain([Segment::Live]);
    let names: Vec<_> = segments.clone().map(|segment| segment.to_string()).collect();
    assert_eq!((&*names[0], &*names[4]), ("telemetry-00000000000000000001.wal", "telemetry.wal"));
    assert!(names.iter().map(|name| Segment::named(name)).eq(segments.clone().map(Some)));
    assert!(segments.is_sorted());
    for name in [
        "",
        "telemetry-.wal",
        "telemetry-1.wal",
        "telemetry-+0000000000000000001.wal",
        "telemetry-18446744073709551616.wal",
        "telemetry-00000000000000000001.wal.tmp",
        "telemetry.wal.tmp",
        "Telemetry.wal",
    ] {
        assert_eq!(Segment::named(name), None, "{name}");
    }
}
