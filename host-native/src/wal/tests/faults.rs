//! Every operation fails once, in every way; then the machine stops, keeping this or that; then the log is opened.

use std::ops::RangeInclusive;

use super::{
    batch, dir, killed_log, killed_log_of,
    memfs::{Failing, Keep, MemFs},
    open, path, records,
};
use gate_core::frame::Kind;

use crate::{
    ErrorClass,
    wal::{
        Record,
        doctor::{diagnose_on, doctor_on, verify_on},
        segment::Segment,
    },
};

/// What was promised: these numbers hold this batch.
#[derive(Debug, Clone)]
struct Acked {
    seqs: RangeInclusive<u64>,
    name: String,
}

const FAILINGS: [Failing; 4] = [Failing::Error, Failing::Short, Failing::Torn, Failing::Crash];

fn keeps(seed: u64) -> Vec<Keep> {
    let seeds = [seed, seed + 1000, seed + 2000];
    let partial = seeds.into_iter().flat_map(|seed| [Keep::Prefix(seed), Keep::Mixed(seed)]);
    [Keep::All, Keep::Synced].into_iter().chain(partial).collect()
}

/// Opens, appends one batch at a time and then two at once, closes. Stops quietly where it fails.
fn work(fs: &MemFs, name: &str, acked: &mut Vec<Acked>) {
    let Ok((wal, _)) = open(fs) else { return };
    let name = |i: usize| format!("{name}{i}");
    for i in 0..3 {
        if let Ok(seqs) = wal.append(batch(&name(i), i + 1)).wait() {
            acked.push(Acked { seqs, name: name(i) });
        }
    }
    let pair = [(3, wal.append(batch(&name(3), 4))), (4, wal.append(batch(&name(4), 2)))];
    for (i, ack) in pair {
        if let Ok(seqs) = ack.wait() {
            acked.push(Acked { seqs, name: name(i) });
        }
    }
    let _ = wal.close();
}

/// Every promise is kept, and every batch is whole.
fn check(records: &[Record], acked: &[Acked]) {
    for Acked { seqs, name } in acked {
        for (i, seq) in seqs.clone().enumerate() {
            let record = &records[usize::try_from(seq).unwrap() - 1];
            assert_eq!(record.attrs, super::frame(&format!("{name}.{i}")).attrs, "frame {seq}");
        }
    }
    let mut left = 0;
    for record in records {
        assert!(left == 0 || record.left == left - 1, "a batch was cut at frame {}", record.seq);
        left = record.left;
    }
    assert_eq!(left, 0, "the last batch was cut");
}

/// The log after the crash: it opens, keeps its promises, takes more, and keeps that through another crash.
fn recover_and_check(fs: &MemFs, acked: &[Acked], may_be_torn: bool) {
    let before = fs.files("telemetry.");
    let opened = open(fs).map(|(wal, _)| {
        // What opening relied on is durable before the first append is acknowledged.
        let stopped = fs.after(Keep::Synced);
        drop(open(&stopped).unwrap());
        check(&records(&stopped), acked);
        let seqs = wal.append(batch("first", 2)).wait().unwrap();
        let first = Acked { seqs, name: "first".to_owned() };
        let stopped = fs.after(Keep::Synced);
        wal.close().unwrap();
        drop(open(&stopped).unwrap());
        check(&records(&stopped), &[acked, &[first]].concat());
    });
    if let Err(error) = &opened {
        assert_eq!(error.class(), ErrorClass::Damaged, "{error}");
        assert!(may_be_torn, "a log that a crash left behind does not open: {error}");
        assert_eq!(fs.files("telemetry."), before);
        doctor_on(&dir(fs)).unwrap();
    }
    check(&records(fs), acked);
    let mut acked = acked.to_vec();
    let promised = acked.len();
    work(fs, "again", &mut acked);
    assert_eq!(acked.len(), promised + 5);
    let later = fs.after(Keep::Synced);
    let (wal, _) = open(&later).unwrap();
    check(&records(&later), &acked);
    wal.close().unwrap();
    let report = verify_on(&dir(&later)).unwrap();
    assert!(report.holds() && report.fault.is_none(), "{report:?}");
}

/// Fails operation 1, 2, … of `work` on `start` until a run has no failure.
fn every_operation_fails(start: &MemFs, promised: &[Acked]) {
    every_operation_fails_and(start, promised, keeps);
}

/// The same where a crash keeps what `keeps` says of the n-th.
fn every_operation_fails_and(start: &MemFs, promised: &[Acked], keeps: impl Fn(u64) -> Vec<Keep>) {
    for failing in FAILINGS {
        let mut runs = 0;
        for nth in 1.. {
            let fs = start.snapshot();
            fs.fail(nth, failing);
            let mut acked = promised.to_vec();
            work(&fs, "new", &mut acked);
            for keep in keeps(nth) {
                let may_be_torn = failing == Failing::Torn || matches!(keep, Keep::Mixed(_));
                recover_and_check(&fs.after(keep), &acked, may_be_torn);
            }
            if !fs.fired() {
                break;
            }
            runs += 1;
        }
        assert!(runs > 20, "{failing:?}: {runs} operations are too few to mean anything");
    }
}

fn promises(records: &[Record]) -> Vec<Acked> {
    let mut all: Vec<Acked> = Vec::new();
    for record in records.iter().filter(|record| record.kind == Kind::Decision) {
        let name = record.attrs.rsplit_once('"').unwrap().0.rsplit_once('"').unwrap().1.split_once('.').unwrap();
        match all.last_mut() {
            Some(last) if last.name == name.0 => last.seqs = *last.seqs.start()..=record.seq,
            _ => all.push(Acked { seqs: record.seq..=record.seq, name: name.0.to_owned() }),
        }
    }
    all
}

#[test]
fn beginning_a_log_survives_every_failure() {
    every_operation_fails(&MemFs::default(), &[]);
}

/// There are many more operations with segments: one of each kind has to do.
fn few_keeps(nth: u64) -> Vec<Keep> {
    vec![
        [Keep::All, Keep::Synced, Keep::Prefix(nth), Keep::Mixed(nth)][usize::try_from(nth % 4).unwrap()],
        Keep::Synced,
    ]
}

#[test]
fn a_log_with_a_segment_for_each_batch_survives_every_failure() {
    every_operation_fails_and(&MemFs::with_segments(1), &[], few_keeps);
}

#[test]
fn going_on_in_segments_after_a_kill_survives_every_failure() {
    let (start, original) = killed_log_of(1500, 6);
    every_operation_fails_and(&start, &promises(&original), few_keeps);
}

#[test]
fn repairing_the_last_of_several_segments_survives_every_failure() {
    let (start, original) = killed_log_of(1500, 6);
    let mut log = start.bytes(&path("telemetry.wal")).unwrap();
    log.extend_from_slice(&[0, 0, 1, 1, b'{', b'"', 0, 9, 9]);
    start.put(&path("telemetry.wal"), Some(log));
    every_operation_fails_and(&start, &promises(&original), few_keeps);
}

#[test]
fn going_on_after_a_kill_survives_every_failure() {
    let (start, original) = killed_log(9);
    every_operation_fails(&start, &promises(&original));
}

#[test]
fn going_on_after_a_failed_sync_survives_every_failure() {
    let (start, original) = killed_log(4);
    let (wal, _) = open(&start).unwrap();
    start.fail_syncs();
    assert!(wal.append(batch("lost", 3)).wait().is_err());
    drop(wal);
    // The frames can be read, their pages are clean, and the disk does not have them.
    assert_eq!(start.after(Keep::Synced).bytes(&path("telemetry.wal")).unwrap().len(), {
        original.iter().map(|record| record.payload.len() + 4).sum::<usize>()
    });
    every_operation_fails(&start, &promises(&original));
}

#[test]
fn repairing_survives_every_failure() {
    let (start, original) = killed_log(9);
    let mut log = start.bytes(&path("telemetry.wal")).unwrap();
    log.extend_from_slice(&[0, 0, 1, 1, b'{', b'"', 0, 9, 9]);
    start.put(&path("telemetry.wal"), Some(log));
    every_operation_fails(&start, &promises(&original));
}

#[test]
fn a_repair_is_noted_however_often_it_was_interrupted() {
    let (start, _) = killed_log(9);
    let mut log = start.bytes(&path("telemetry.wal")).unwrap();
    let tail = [0, 0, 1, 1, b'{', b'"', 0, 9, 9];
    log.extend_from_slice(&tail);
    start.put(&path("telemetry.wal"), Some(log));
    for nth in 1.. {
        let fs = start.snapshot();
        fs.fail(nth, Failing::Crash);
        drop(open(&fs));
        for keep in [Keep::All, Keep::Synced, Keep::Prefix(nth)] {
            let later = fs.after(keep);
            drop(open(&later).unwrap());
            let tails = later.files("telemetry.tail.");
            assert!(tails.values().any(|bytes| *bytes == tail), "the tail is gone: {tails:?}");
            let noted: String = records(&later).into_iter().map(|record| record.attrs).collect();
            for file in tails.keys().filter(|file| file.extension().is_some_and(|end| end != "tmp")) {
                let name = file.file_name().unwrap().to_string_lossy();
                assert!(noted.contains(&format!("\"{name}\"")), "{name} is in no frame: {noted}");
            }
        }
        if !fs.fired() {
            break;
        }
    }
}

#[test]
fn the_doctor_survives_every_failure() {
    let (start, original) = killed_log(12);
    the_doctor_of_damage_survives_every_failure(&start, &original, "telemetry.wal");
}

#[test]
fn the_doctor_of_many_segments_survives_every_failure() {
    let (start, original) = killed_log_of(800, 12);
    let sealed = dir(&start).sealed().unwrap();
    assert!(sealed.len() > 1, "{sealed:?}");
    for segment in [Segment::Sealed(sealed[1]).to_string(), "telemetry.wal".to_owned()] {
        the_doctor_of_damage_survives_every_failure(&start.snapshot(), &original, &segment);
    }
}

/// Damages the segment in its middle.
fn the_doctor_of_damage_survives_every_failure(start: &MemFs, original: &[Record], segment: &str) {
    let mut log = start.bytes(&path(segment)).unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 4;
    start.put(&path(segment), Some(log.clone()));
    let last = original.last().unwrap().seq;
    start.put(&path("telemetry.safe_seq"), Some(last.to_le_bytes().to_vec()));
    let kept = diagnose_on(&dir(start)).unwrap().last_good;
    let acked = promises(&original[..usize::try_from(kept).unwrap()]);
    for failing in FAILINGS {
        for nth in 1.. {
            let fs = start.snapshot();
            fs.fail(nth, failing);
            let _ = doctor_on(&dir(&fs));
            for keep in keeps(nth) {
                let later = fs.after(keep);
                if let Err(error) = open(&later).map(drop) {
                    assert_eq!(error.class(), ErrorClass::Damaged, "{error}");
                    doctor_on(&dir(&later)).unwrap();
                }
                let now = records(&later);
                check(&now[..acked.last().map_or(0, |last| usize::try_from(*last.seqs.end()).unwrap())], &acked);
                assert!(now.last().unwrap().attrs.contains("\"event\":\"wal_doctored\""), "no frame tells of the loss");
                let copies = later.files(&format!("{segment}.before."));
                assert!(copies.values().any(|copy| *copy == log), "no copy was kept");
                recover_and_check(&later, &acked, false);
            }
            if !fs.fired() {
                break;
            }
        }
    }
}
