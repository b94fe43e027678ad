//! Diagnose, verify and doctor on every kind of log.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use super::{batch, dir, killed_log, killed_log_of, memfs::MemFs, open, path, records};
use crate::{
    ErrorClass,
    wal::{
        Opened, Opening, Record, WalError, Walk, diagnose,
        doctor::{diagnose_on, doctor_on, told, verify_on},
    },
};

fn treat(fs: &MemFs) -> Result<crate::wal::Doctored, WalError> {
    doctor_on(&dir(fs))
}

/// A log of nine frames that was closed in order, changed by `change`.
fn changed(change: impl FnOnce(&MemFs, Vec<u8>)) -> (MemFs, Vec<Record>) {
    let (fs, original) = killed_log(9);
    drop(open(&fs).unwrap());
    change(&fs, fs.bytes(&path("telemetry.wal")).unwrap());
    (fs, original)
}

/// A closed log of one sealed segment, with three frames, and the live one; and the first frame of that.
fn sealed() -> (MemFs, u64) {
    let fs = MemFs::with_segments(600);
    let (wal, _) = open(&fs).unwrap();
    for _ in 0..2 {
        wal.append(batch("b", 3)).wait().unwrap();
    }
    wal.close().unwrap();
    (fs, 4)
}

fn safe_seq(fs: &MemFs, bytes: Option<&[u8]>) {
    fs.put(&path("telemetry.safe_seq"), bytes.map(<[u8]>::to_vec));
}

#[test]
fn a_failed_file_operation_says_what_failed_and_what_to_check() {
    let error = WalError::io("open", Path::new("/wal/telemetry.wal"))(std::io::ErrorKind::PermissionDenied.into());
    assert_eq!(
        error.to_string(),
        "cannot open `/wal/telemetry.wal` (permission denied): check the disk, and who may read and write there"
    );
}

#[test]
fn the_remedy_fits_the_cause() {
    use std::io::{Error, ErrorKind};
    let stopped = |source: Error| {
        let (dir, op) = (Path::new("/wal").to_owned(), "write".to_owned());
        WalError::Poisoned { dir, op, source: Arc::new(source) }.to_string()
    };
    for (source, remedy) in [
        (Error::from_raw_os_error(28), "free space outside of the log"),
        (Error::from_raw_os_error(27), "raise the limit on the size of files (`ulimit -f`)"),
        (Error::from_raw_os_error(24), "raise `ulimit -n`, or hold fewer connections"),
        (Error::from_raw_os_error(23), "raise `ulimit -n`, or hold fewer connections"),
        (Error::from_raw_os_error(12), "free some memory"),
        (Error::from_raw_os_error(5), "check the disk, and who may read and write there"),
        (Error::from_raw_os_error(13), "check the disk, and who may read and write there"),
        (Error::from_raw_os_error(17), "give a directory, or move what is there away"),
        (Error::new(ErrorKind::InvalidData, "it is not a regular file"), "move that away"),
    ] {
        let expected = format!("log at `/wal` stopped after a failed write: {source}; {remedy}, then restart");
        assert_eq!(stopped(source), expected);
    }
}

#[test]
fn every_row_is_met_by_a_log_in_that_state() {
    let (none, nine) = (0_u64.to_le_bytes(), 9_u64.to_le_bytes());
    let rows: Vec<(&str, MemFs)> = vec![
        ("init", MemFs::default()),
        ("init", {
            let fs = MemFs::default();
            safe_seq(&fs, Some(&none));
            fs
        }),
        ("log_lost", changed(|fs, _| fs.put(&path("telemetry.wal"), None)).0),
        (
            "safe_seq_malformed",
            changed(|fs, _| {
                fs.put(&path("telemetry.wal"), None);
                safe_seq(fs, Some(b"9"));
            })
            .0,
        ),
        ("safe_seq_lost", changed(|fs, _| safe_seq(fs, None)).0),
        ("safe_seq_lost", changed(|fs, _| safe_seq(fs, Some(b"123456789"))).0),
        ("safe_seq_lost", {
            let fs = MemFs::default();
            fs.put(&path("telemetry.wal"), Some(vec![]));
            fs
        }),
        ("committed_lost", changed(|fs, log| fs.put(&path("telemetry.wal"), Some(log[..900].to_vec()))).0),
        ("committed_lost", changed(|fs, _| fs.put(&path("telemetry.wal"), Some(vec![]))).0),
        ("committed_lost", changed(|fs, _| safe_seq(fs, Some(&10_u64.to_le_bytes()))).0),
        ("open", changed(|_, _| {}).0),
        ("rotation", {
            let (fs, live_first) = sealed();
            fs.put(&path("telemetry.wal"), None);
            safe_seq(&fs, Some(&(live_first - 1).to_le_bytes()));
            fs
        }),
        ("segment_lost", {
            let (fs, _) = sealed();
            fs.put(&path("telemetry-00000000000000000001.wal"), Some(vec![]));
            fs
        }),
        ("start_lost", {
            let (fs, _) = sealed();
            fs.put(&path("telemetry-00000000000000000001.wal"), None);
            fs
        }),
        (
            "repair",
            changed(|fs, mut log| {
                log.push(0);
                fs.put(&path("telemetry.wal"), Some(log))
            })
            .0,
        ),
        (
            "damaged",
            changed(|fs, mut log| {
                log[900] ^= 1;
                fs.put(&path("telemetry.wal"), Some(log));
                safe_seq(fs, Some(&none));
            })
            .0,
        ),
        (
            "misplaced",
            changed(|fs, mut log| {
                log.extend_from_within(..log.len());
                fs.put(&path("telemetry.wal"), Some(log));
                safe_seq(fs, Some(&nine));
            })
            .0,
        ),
    ];
    for (row, fs) in rows {
        let before = fs.files("");
        if row == "init" {
            assert!(matches!(diagnose_on(&dir(&fs)), Err(WalError::NoLog { .. })));
            assert!(matches!(treat(&fs), Err(WalError::NoDoctorNeeded { .. })));
            assert_eq!(open(&fs).unwrap().1, Opened::Initialized);
            continue;
        }
        let diagnosis = diagnose_on(&dir(&fs)).unwrap();
        assert_eq!(fs.files(""), before, "{row}: looking changed something");
        assert_eq!(diagnosis.row, row, "{diagnosis:?}");
        let expected = match row {
            "open" | "rotation" => Opening::Open,
            "repair" => Opening::Repair,
            _ => Opening::Fail,
        };
        assert_eq!(diagnosis.opening, expected);
        let opened = open(&fs.snapshot()).map(|(_, opened)| opened);
        match (expected, opened) {
            (Opening::Open, Ok(Opened::Clean { last_seq: 9 | 3 }))
            | (Opening::Repair, Ok(Opened::Repaired { last_seq: 9, bytes: 1, .. })) => {
                let refused = treat(&fs).unwrap_err();
                assert!(matches!(refused, WalError::NoDoctorNeeded { .. }), "{refused}");
                assert!(refused.to_string().ends_with(": start a runtime with it"), "{refused}");
            }
            (Opening::Fail, Err(error)) => {
                assert_eq!(error.class(), ErrorClass::Damaged);
                let text = error.to_string();
                assert!(text.ends_with("run `autonomy wal doctor --wal-dir /wal`") && !text.contains('\n'), "{text}");
                assert_eq!(fs.files(""), before, "{row}: failing changed something");
                let log = fs.bytes(&path("telemetry.wal"));
                let doctored = treat(&fs).unwrap();
                assert_eq!((doctored.last, doctored.lost), (diagnosis.last_good, diagnosis.would_lose));
                assert_eq!(fs.bytes(&path("telemetry.wal.before.1")), log);
                let (wal, opened) = open(&fs).unwrap();
                // Where the log begins in the middle, a frame says that, too.
                let own = if row == "start_lost" { 2 } else { 1 };
                assert_eq!(opened, Opened::Clean { last_seq: doctored.last + own });
                drop(wal);
                let last = records(&fs).pop().unwrap();
                let attrs: serde_json::Value = serde_json::from_str(&last.attrs).unwrap();
                assert_eq!((&attrs["event"], &attrs["row"]), (&"wal_doctored".into(), &row.into()));
            }
            (expected, opened) => panic!("{row}: {expected:?}, {opened:?}"),
        }
    }
}

#[test]
fn verify_names_the_first_fault() {
    let (fs, original) = changed(|_, _| {});
    let report = verify_on(&dir(&fs)).unwrap();
    let size = fs.bytes(&path("telemetry.wal")).unwrap().len() as u64;
    assert!(report.holds() && !report.unfinished && report.fault.is_none());
    assert_eq!((report.frames, report.bytes, report.committed), (9, size, 9));
    assert_eq!(report.batches, original.iter().filter(|record| record.left == 0).count() as u64);
    assert_eq!(report.head.as_bytes(), crate::wal::codec::link_to(original.last().unwrap().payload.as_bytes()));

    let offset = 4 + original[0].payload.len() as u64;
    let (fs, _) = changed(|fs, mut log| {
        log[usize::try_from(offset).unwrap() + 30] ^= 0x20;
        fs.put(&path("telemetry.wal"), Some(log));
    });
    let report = verify_on(&dir(&fs)).unwrap();
    let fault = report.fault.as_ref().unwrap();
    assert_eq!((fault.seq, fault.offset, fault.what), (2, offset, "its checksum does not hold"));
    assert!(!report.holds());
    let next = 4 + original[1].payload.len() as u64 + offset;
    let expected = format!(
        "log at `/wal` has lost committed frames: last good frame is 1, 9 were committed (frame 2 at byte {offset}: its \
         checksum does not hold, and a whole frame follows at byte {next}); restore it or run `autonomy wal doctor \
         --wal-dir /wal`"
    );
    assert_eq!(report.error.unwrap().to_string(), expected);

    let (fs, _) = changed(|fs, mut log| {
        log.extend_from_slice(b"\0\0\x02");
        fs.put(&path("telemetry.wal"), Some(log));
    });
    let report = verify_on(&dir(&fs)).unwrap();
    assert!(report.holds() && report.unfinished);
    assert_eq!(report.frames, 9);
}

#[test]
fn looking_at_nothing_creates_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("wal");
    assert!(matches!(diagnose(&missing), Err(WalError::NoLog { .. })));
    assert!(matches!(crate::wal::verify(&missing), Err(WalError::NoLog { .. })));
    assert!(!missing.exists());
}

#[test]
fn whoever_wants_to_know_is_told_how_far_a_walk_has_come() {
    for segment_bytes in [MemFs::default().segment_bytes, 1000] {
        let (fs, _) = killed_log_of(segment_bytes, 14);
        drop(open(&fs).unwrap());
        let (directory, told) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let mut bytes = 0;
        for (file, content) in fs.files("telemetry") {
            std::fs::write(directory.path().join(file.file_name().unwrap()), &content).unwrap();
            bytes += if file.ends_with("telemetry.safe_seq") { 0 } else { content.len() as u64 };
        }
        let listener = Arc::clone(&told);
        let walk = Walk::told(directory.path(), move |at, bytes| listener.lock().unwrap().push((at, bytes)));
        let report = crate::wal::verify(walk).unwrap();
        assert!(report.holds());
        assert_eq!(report.sealed > 1, segment_bytes == 1000);
        let told = told.lock().unwrap();
        assert!(told.len() > report.sealed && told.is_sorted(), "{told:?}");
        assert_eq!(told.last(), Some(&(bytes, bytes)));
    }
}

#[test]
fn the_doctor_names_as_many_copies_in_the_log_as_fit_a_frame() {
    let copies = |count: u32| (0..count).map(|at| format!("telemetry-{at:020}.wal.before.1")).collect::<Vec<_>>();
    assert_eq!(told(&copies(64)), copies(64));
    let many = told(&copies(30_000));
    assert_eq!((many.len(), &many[..64], many[64].as_str()), (65, &copies(64)[..], "and 29936 more"));
}

#[test]
fn the_doctor_waits_for_the_writer_to_be_gone() {
    let (fs, _) = killed_log(3);
    let (wal, _) = open(&fs).unwrap();
    assert!(matches!(treat(&fs), Err(WalError::Locked { .. })));
    assert!(matches!(diagnose_on(&dir(&fs)), Err(WalError::Locked { pid: Some(_), .. })));
    drop(wal);
}
