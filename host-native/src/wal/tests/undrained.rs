//! What a drain knows: nothing is forgotten, nothing is said to be acknowledged that was not.

use super::{
    batch, dir, frame, killed_log,
    memfs::{Failing, Keep, MemFs},
    open, path, timeless,
};
use crate::{
    ErrorClass,
    wal::{Record, Refused, Undrained, Wal, WalError, codec, doctor, doctor::doctor_on},
};

fn undrained(fs: &MemFs) -> Result<Undrained, WalError> {
    Undrained::open_on(dir(fs))
}

/// Takes so many frames; gives their ids.
fn take(undrained: &mut Undrained, frames: usize) -> Vec<String> {
    (0..frames).map_while(|_| undrained.next_frame().unwrap()).map(|(id, _)| id).collect()
}

fn wal_id(record: &Record) -> String {
    record.hash()[..22].to_owned()
}

fn refused() -> Refused {
    Refused { why: "no".to_owned(), rejected: 1, ids: vec!["a:1".to_owned()] }
}

#[test]
fn frames_are_handed_out_until_they_are_acknowledged_and_then_never_again() {
    let (fs, records) = killed_log(9);
    let ids: Vec<_> = (1..=9).map(|seq| format!("{}:{seq}", wal_id(&records[0]))).collect();
    let mut first = undrained(&fs).unwrap();
    assert_eq!(first.lag().unwrap(), 9);
    assert_eq!(take(&mut first, 4), ids[..4]);
    drop(first);
    let mut again = undrained(&fs).unwrap();
    assert_eq!(take(&mut again, 4), ids[..4], "nobody said that they were acknowledged");
    again.advance().unwrap();
    assert_eq!((again.acknowledged(), again.lag().unwrap()), (4, 5));
    assert_eq!(take(&mut again, 2), ids[4..6]);
    drop(again);
    let mut last = undrained(&fs).unwrap();
    assert_eq!((last.acknowledged(), take(&mut last, 9)), (4, ids[4..].to_vec()));
    last.advance().unwrap();
    drop(last);
    assert_eq!(take(&mut undrained(&fs).unwrap(), 1), [""; 0]);
}

#[test]
fn what_was_drained_is_not_said_in_another_log_that_is_in_the_place_of_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("wal");
    let written = || {
        let (wal, _) = Wal::open(&dir, timeless()).unwrap();
        wal.append(batch("a", 3)).wait().unwrap();
        wal.close().unwrap();
        let mut undrained = Undrained::open(&dir).unwrap();
        take(&mut undrained, 2);
        undrained
    };
    let mut away = written();
    std::fs::rename(&dir, home.path().join("away")).unwrap();
    written().advance().unwrap();
    let mut unlocked = Undrained::open(&dir).unwrap();
    take(&mut unlocked, 1);
    std::fs::remove_file(dir.join("drain.lock")).unwrap();
    let position = std::fs::read(dir.join("telemetry.pos")).unwrap();
    for undrained in [&mut away, &mut unlocked] {
        for error in [undrained.advance().unwrap_err(), undrained.park(&refused()).unwrap_err()] {
            assert!(error.to_string().contains("`drain.lock`, or the directory, was removed or replaced"), "{error}");
        }
    }
    assert_eq!(std::fs::read(dir.join("telemetry.pos")).unwrap(), position);
    assert!(!dir.join("telemetry.parked").exists());
}

#[test]
fn frames_that_are_written_later_follow_without_a_gap() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    let mut undrained = undrained(&fs).unwrap();
    assert!(undrained.next_frame().unwrap().is_none());
    undrained.advance().unwrap();
    assert_eq!(fs.bytes(&path("telemetry.pos")), None, "there is nothing to say");
    for round in 0..5_u64 {
        wal.append(batch(&format!("{round}"), 3)).wait().unwrap();
        let seqs: Vec<_> = (0..3).map(|_| undrained.next_frame().unwrap().unwrap().1.seq).collect();
        assert_eq!(seqs, [round * 3 + 1, round * 3 + 2, round * 3 + 3]);
        assert!(undrained.next_frame().unwrap().is_none());
        undrained.advance().unwrap();
        assert_eq!((undrained.acknowledged(), undrained.lag().unwrap()), (round * 3 + 3, 0));
    }
}

#[test]
fn one_drain_at_a_time_and_none_makes_files_where_there_is_no_log() {
    let empty = MemFs::default();
    assert!(matches!(undrained(&empty), Err(WalError::NoLog { .. })));
    assert!(empty.files("").is_empty());

    let (fs, _) = killed_log(1);
    let first = undrained(&fs).unwrap();
    let error = undrained(&fs).unwrap_err();
    let pid = std::process::id();
    assert_eq!(
        error.to_string(),
        format!("log at `/wal` is being drained by process {pid}: stop that process, or let it do the work")
    );
    assert_eq!(error.class(), ErrorClass::Unavailable);
    drop(first);
    undrained(&fs).unwrap();
}

#[test]
fn a_position_with_any_byte_changed_or_missing_is_refused() {
    let (fs, _) = killed_log(3);
    let mut drained = undrained(&fs).unwrap();
    take(&mut drained, 2);
    drained.advance().unwrap();
    drop(drained);
    let good = fs.bytes(&path("telemetry.pos")).unwrap();
    let put = |bytes: Vec<u8>| {
        fs.put(&path("telemetry.pos"), Some(bytes));
        undrained(&fs)
    };
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let error = put(bytes).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Damaged, "byte {at}, bit {bit}: {error}");
        }
        assert!(put(good[..at].to_vec()).is_err(), "{at} bytes");
    }
    assert!(put([&good[..], b"\n"].concat()).is_err());
    assert!(put(vec![b' '; 1 << 20]).is_err());
    assert_eq!(
        put(b"{}".to_vec()).unwrap_err().to_string(),
        "cannot tell what was drained of the log at `/wal`: `telemetry.pos` is damaged; restore `telemetry.pos`, or \
         remove it to send the log from its start, with the same ids"
    );
    assert_eq!(put(good).unwrap().acknowledged(), 2);
}

#[test]
fn a_position_of_another_log_is_refused() {
    let (other, _) = killed_log(5);
    let mut drained = undrained(&other).unwrap();
    take(&mut drained, 4);
    drained.advance().unwrap();
    let position = other.bytes(&path("telemetry.pos"));
    for (frames, why) in
        [(9, "frame 4 is not the one that was drained"), (2, "frame 4 was drained, and the log ends before it")]
    {
        let (fs, _) = killed_log(frames);
        fs.put(&path("telemetry.pos"), position.clone());
        let error = undrained(&fs).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Damaged);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn what_was_acknowledged_is_known_to_be_durable_when_the_marks_are_lost() {
    let (fs, _) = killed_log(9);
    let mut drained = undrained(&fs).unwrap();
    take(&mut drained, 9);
    drained.advance().unwrap();
    drop(drained);
    fs.put(&path("wal.lock"), None);
    assert_eq!(undrained(&fs).unwrap().acknowledged(), 9);
}

/// Damages frame `seq` and has the doctor cut there.
fn doctored(fs: &MemFs, seq: u64) {
    let mut bytes = fs.bytes(&path("telemetry.wal")).unwrap();
    let needle = format!("{{\"seq\":{seq},");
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    bytes[at + 30] ^= 1;
    fs.put(&path("telemetry.wal"), Some(bytes));
    fs.put(&path("telemetry.safe_seq"), Some(9_u64.to_le_bytes().to_vec()));
    doctor_on(&dir(fs)).unwrap();
}

#[test]
fn after_a_doctor_numbers_come_again_and_ids_do_not() {
    for acknowledged in 0..=9 {
        let (fs, _) = killed_log(9);
        let mut drained = undrained(&fs).unwrap();
        let mut ids = take(&mut drained, acknowledged);
        drained.advance().unwrap();
        drop(drained);
        doctored(&fs, 6);
        let (wal, _) = open(&fs).unwrap();
        wal.append(batch("new", 5)).wait().unwrap();
        let mut drained = undrained(&fs).unwrap();
        let new = take(&mut drained, 99);
        let seqs: Vec<u64> = new.iter().map(|id| id.rsplit_once(':').unwrap().1.parse().unwrap()).collect();
        // Batches are 1, 2, 3, 1, 2 long: the one of 4 to 6 is gone, frame 4 is the doctor's.
        let first = u64::try_from(acknowledged).unwrap().min(3) + 1;
        assert_eq!(seqs, (first..=9).collect::<Vec<_>>(), "{acknowledged} acknowledged");
        assert!(new.iter().all(|id| !ids.contains(id)), "{acknowledged} acknowledged");
        drained.advance().unwrap();
        drop(drained);
        ids.extend(new);
        assert!(take(&mut undrained(&fs).unwrap(), 1).is_empty(), "the new position holds");
    }
}

#[test]
fn a_drain_that_follows_goes_on_in_the_log_that_the_doctor_put_there() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), timeless()).unwrap();
    for at in 0..9 {
        wal.append(vec![frame(&format!("{at}"))]).wait().unwrap();
    }
    wal.close().unwrap();
    let mut follows = Undrained::open(home.path()).unwrap();
    let before = take(&mut follows, 99);
    assert_eq!(before.len(), 9);
    let log = home.path().join("telemetry.wal");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(9).position(|window| window == b"{\"seq\":6,").unwrap();
    bytes[at + 30] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    assert!(follows.next_frame().unwrap().is_none(), "it has passed that frame");
    doctor(home.path()).unwrap();
    let (id, record) = follows.next_frame().unwrap().unwrap();
    assert_eq!((record.seq, id), (6, format!("{}:6", wal_id(&record))));
    assert!(follows.next_frame().unwrap().is_none());
    follows.advance().unwrap();
    drop(follows);
    assert_eq!(Undrained::open(home.path()).unwrap().acknowledged(), 6);
}

#[test]
fn a_position_survives_every_failure_and_is_never_ahead() {
    for failing in [Failing::Error, Failing::Short, Failing::Torn, Failing::Crash] {
        let mut runs = 0;
        for nth in 1.. {
            let (fs, _) = killed_log(9);
            fs.fail(nth, failing);
            let (mut said, mut may_be) = (0, 0);
            if let Ok(mut drained) = undrained(&fs) {
                for _ in 0..3 {
                    let Ok(Some(_)) = drained.next_frame() else { break };
                    let Ok(Some((_, Record { seq, .. }))) = drained.next_frame() else { break };
                    if drained.park(&refused()).is_err() {
                        break;
                    }
                    may_be = seq;
                    if drained.advance().is_err() {
                        break;
                    }
                    said = seq;
                }
            }
            for keep in [Keep::All, Keep::Synced, Keep::Prefix(nth), Keep::Mixed(nth)] {
                let after = fs.after(keep);
                let found = undrained(&after).unwrap_or_else(|error| panic!("{failing:?} {nth} {keep:?}: {error}"));
                assert!((said..=may_be).contains(&found.acknowledged()), "{failing:?} {nth} {keep:?}");
                let parked = after.bytes(&path("telemetry.parked")).unwrap_or_default();
                let whole = parked.split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"]}")).count() as u64;
                assert!(whole >= said / 2, "{failing:?} {nth} {keep:?}: it was parked before the position moved");
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
fn a_line_that_a_crash_cut_short_does_not_spoil_the_next() {
    let (fs, _) = killed_log(1);
    fs.put(&path("telemetry.parked"), Some(b"{\"at\":\"20".to_vec()));
    let undrained = undrained(&fs).unwrap();
    undrained.park(&refused()).unwrap();
    undrained.park(&refused()).unwrap();
    let parked = String::from_utf8(fs.bytes(&path("telemetry.parked")).unwrap()).unwrap();
    let lines: Vec<_> = parked.lines().collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let (at, rest) = line.strip_prefix("{\"at\":\"").unwrap().split_once('"').unwrap();
        assert_eq!((at.len(), rest), (30, ",\"why\":\"no\",\"rejected\":1,\"ids\":[\"a:1\"]}"));
    }
}

#[test]
fn a_time_is_read_back_to_the_nanosecond() {
    let day = 86_400_000_000_000;
    let days = (0..213_000).step_by(13).chain([0, 58, 59, 60, 364, 365, 11_016, 11_017, 47_540, 47_541]);
    for (at, days) in days.enumerate() {
        let unix_ns = days * day + (at as u64 * 7_919_000_000_001) % day;
        assert_eq!(codec::unix_ns_of(&codec::time_of(unix_ns)), unix_ns);
    }
    for odd in
        ["", "1969-12-31T23:59:59.000000000Z", "9999-12-31T23:59:59.999999999Z", "2026-01-00T00:00:00.000000000Z"]
    {
        assert_eq!(codec::unix_ns_of(odd), 0, "{odd}");
    }
}
