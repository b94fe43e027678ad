//! Damage, one bit and one byte at a time.

use super::{dir, killed_log, memfs::MemFs, open, path};
use crate::{
    ErrorClass,
    wal::{
        Opened, Reader, Record, WalError,
        dir::SafeSeq,
        recovery::{Action, Survey},
        scan::{Place, Scanner},
    },
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Opens a log made of these bytes and checks the promise: either every committed frame is there unchanged, or opening
/// fails and no byte has changed. Says whether it opened.
fn open_damaged(log: Vec<u8>, safe_seq: u64, original: &[Record]) -> bool {
    let fs = MemFs::default();
    fs.put(&path("telemetry.wal"), Some(log));
    fs.put(&path("telemetry.safe_seq"), Some(safe_seq.to_le_bytes().to_vec()));
    let before = fs.files("telemetry.");
    let dir = dir(&fs);
    let committed = Survey::of(&dir).unwrap().committed;
    assert!(committed >= safe_seq);
    match open(&fs) {
        Err(WalError::Io { .. }) => panic!("not an answer about damage"),
        Err(_) => {
            assert_eq!(fs.files("telemetry."), before, "a failed open changed a byte");
            false
        }
        Ok((wal, opened)) => {
            wal.close().unwrap();
            let now = super::records(&fs);
            let kept = usize::try_from(committed).unwrap();
            assert_eq!(now[..kept], original[..kept], "a committed frame changed");
            let noted = usize::from(matches!(opened, Opened::Repaired { .. }));
            for (record, original) in now[..now.len() - noted].iter().zip(original) {
                assert_eq!(record, original, "a frame that nobody wrote");
            }
            assert_eq!(noted == 1, now.last().is_some_and(|last| last.attrs.contains("wal_repaired")));
            true
        }
    }
}

/// Runs `check` on the numbers below `count`, on both cores.
fn on_every(count: usize, check: impl Fn(usize) + Sync) {
    let check = &check;
    std::thread::scope(|scope| {
        for start in 0..2 {
            scope.spawn(move || (start..count).step_by(2).for_each(check));
        }
    });
}

/// Where every frame of a whole log starts.
fn places(fs: &MemFs) -> Vec<Place> {
    let mut scanner = Scanner::first(&dir(fs)).unwrap().unwrap();
    let mut places = Vec::new();
    loop {
        places.push(scanner.place.clone());
        if scanner.next().unwrap().unwrap().is_none() {
            return places;
        }
    }
}

#[test]
fn no_flipped_bit_is_accepted_or_truncates_what_was_committed() {
    let (fs, original) = killed_log(50);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let ends: Vec<u64> = original.iter().filter(|r| r.left == 0).map(|r| r.seq).collect();
    let marks = [0, ends[3], ends[ends.len() / 2], ends[ends.len() - 2], 50];
    let last_frame = log.len() - original.last().unwrap().payload.len() - 4;
    let places = places(&fs);
    let repaired = AtomicUsize::new(0);
    on_every(log.len() * 8, |bit| {
        let mut damaged = log.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let fs = MemFs::default();
        fs.put(&path("telemetry.wal"), Some(damaged.clone()));
        let dir = dir(&fs);
        // What comes before the damage is the same for every bit: it is walked again for some of them only.
        let before = places.iter().rfind(|place| place.offset <= (bit / 8) as u64).unwrap();
        let mut survey = Survey::from(&dir, before.clone()).unwrap();
        if bit % 97 == 0 {
            let whole = Survey::of(&dir).unwrap();
            assert_eq!((whole.row.name, &whole.fault, whole.later), (survey.row.name, &survey.fault, survey.later));
        }
        for safe_seq in marks {
            survey = survey.judged(SafeSeq::Is(safe_seq));
            match survey.row.action {
                Action::Init | Action::Open => panic!("bit {bit} was accepted"),
                // Only in the last frame, and only while `safe_seq` lags, can a flip look like an unfinished write.
                Action::Repair => {
                    assert!(safe_seq < 50 && bit / 8 >= last_frame + 4, "bit {bit} truncates at {safe_seq}");
                    assert!(survey.last_good() >= survey.committed);
                    repaired.fetch_add(1, Ordering::Relaxed);
                    if bit % 41 == 0 {
                        assert!(open_damaged(damaged.clone(), safe_seq, &original));
                    }
                }
                Action::Fail(_) if bit % 499 == 0 => assert!(!open_damaged(damaged.clone(), safe_seq, &original)),
                Action::Fail(_) => {}
            }
        }
    });
    assert!(repaired.into_inner() > 0);
}

#[test]
fn a_reader_never_hands_out_a_changed_frame() {
    let (fs, original) = killed_log(6);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let lock = fs.bytes(&path("wal.lock"));
    on_every(log.len() * 8, |bit| {
        let mut damaged = log.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let fs = MemFs::default();
        fs.put(&path("telemetry.wal"), Some(damaged));
        fs.put(&path("wal.lock"), lock.clone());
        let mut reader = Reader::open_on(dir(&fs)).unwrap();
        let mut good = 0;
        let error = loop {
            match reader.next_record() {
                Ok(Some(record)) => assert_eq!(record, original[good]),
                Ok(None) => panic!("the damage at bit {bit} was passed over"),
                Err(error) => break error,
            }
            good += 1;
        };
        assert_eq!(error.class(), ErrorClass::Damaged, "{error}");
        assert_eq!(reader.next_record().unwrap(), None, "after an error there is nothing more");
    });
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_batch_or_fails() {
    let (fs, original) = killed_log(20);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let middle = original.iter().filter(|r| r.left == 0).nth(5).unwrap().seq;
    for safe_seq in [0, middle, 20] {
        on_every(log.len() + 1, |cut| {
            let opened = open_damaged(log[..cut].to_vec(), safe_seq, &original);
            let mut end = 0;
            let whole = original
                .iter()
                .filter(|record| {
                    end += record.payload.len() + 4;
                    record.left == 0 && end <= cut
                })
                .map(|record| record.seq)
                .max()
                .unwrap_or(0);
            assert_eq!(opened, whole >= safe_seq, "cut at {cut}, safe_seq {safe_seq}");
        });
    }
}

#[test]
fn a_tail_of_zeros_or_noise_is_set_aside() {
    let (fs, original) = killed_log(9);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    for tail in [vec![0; 1], vec![0; 3], vec![0; 4], vec![0; 4096], vec![7; 2], vec![0xff; 64], vec![0, 0, 2, 1, 9, 9]]
    {
        let mut damaged = log.clone();
        damaged.extend(&tail);
        assert!(open_damaged(damaged, 9, &original), "{tail:?}");
    }
}

#[test]
fn a_damaged_length_of_the_last_frame_is_not_an_unfinished_write() {
    let (fs, original) = killed_log(5);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let last = log.len() - original.last().unwrap().payload.len() - 4;
    for bit in 0..32 {
        let mut damaged = log.clone();
        damaged[last + bit / 8] ^= 1 << (bit % 8);
        assert!(!open_damaged(damaged, 0, &original), "bit {bit} of the length");
    }
}
