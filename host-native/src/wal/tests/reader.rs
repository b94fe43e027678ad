//! Reading beside a writer, and what a reader refuses.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{DIR, batch, dir, killed_log, memfs::MemFs, open, path};
use crate::{
    ErrorClass,
    wal::{
        Options, Reader, Wal, WalError,
        dir::Dir,
        doctor::diagnose_on,
        fs::{File, Fs, How},
    },
};

fn reader(fs: &MemFs) -> Reader {
    Reader::open_on(dir(fs)).unwrap()
}

#[test]
fn a_reader_stops_at_the_durable_mark_of_a_live_writer() {
    let fs = MemFs::default();
    let (wal, _) = open(&fs).unwrap();
    let mut reader = reader(&fs);
    assert_eq!(reader.next_record().unwrap(), None);
    wal.append(batch("a", 2)).wait().unwrap();
    assert_eq!(reader.by_ref().map(|r| r.unwrap().seq).collect::<Vec<_>>(), [1, 2]);

    let gate = fs.gate.lock().unwrap();
    let before = fs.bytes(&path("telemetry.wal")).unwrap().len();
    let ack = wal.append(batch("b", 3));
    while fs.bytes(&path("telemetry.wal")).unwrap().len() == before {
        thread::yield_now();
    }
    assert_eq!(reader.next_record().unwrap(), None, "written, and not durable");
    drop(gate);
    ack.wait().unwrap();
    assert_eq!(reader.map(|r| r.unwrap().seq).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_reader_follows_a_writer_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    let last = thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut reader = Reader::open(dir.path()).unwrap();
            let mut last = 0;
            while last < 600 {
                match reader.next_record().unwrap() {
                    Some(record) => {
                        assert_eq!(record.seq, last + 1);
                        last = record.seq;
                    }
                    None => thread::yield_now(),
                }
            }
            last
        });
        for i in 0..300 {
            wal.append(batch(&format!("b{i}"), 2)).wait().unwrap();
        }
        follower.join().unwrap()
    });
    assert_eq!(last, 600);
}

/// A log that grows while it is looked at: so many times its file has only the first bytes, then all.
#[derive(Debug)]
struct Growing {
    fs: MemFs,
    first: u64,
    looks: AtomicU64,
}

#[derive(Debug)]
struct GrowingFile {
    file: Arc<dyn File>,
    first: u64,
    looks: AtomicU64,
}

impl Fs for Growing {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir(dir)
    }

    fn open(&self, file: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let opened = self.fs.open(file, how)?;
        if file != path("telemetry.wal") {
            return Ok(opened);
        }
        let looks = AtomicU64::new(self.looks.load(Ordering::Relaxed));
        Ok(Arc::new(GrowingFile { file: opened, first: self.first, looks }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fs.names(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }
}

impl File for GrowingFile {
    fn len(&self) -> io::Result<u64> {
        let look = self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if look.is_ok() { Ok(self.first) } else { self.file.len() }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

#[test]
fn a_log_that_grows_while_it_is_looked_at_is_read_to_its_end() {
    let (fs, original) = killed_log(9);
    fs.put(&path("wal.lock"), None);
    fs.put(&path("telemetry.safe_seq"), Some(vec![0; 8]));
    let last_durable = original.last().unwrap().durable;
    let bytes = fs.bytes(&path("telemetry.wal")).unwrap().len() as u64;
    for first in 0..bytes {
        for looks in 1..4 {
            let growing = Growing { fs: fs.clone(), first, looks: AtomicU64::new(looks) };
            let mut reader = Reader::open_on(Dir::new(Arc::new(growing), Path::new(DIR))).unwrap();
            let mut last = 0;
            // More often than it looks: what there is not yet, is there later.
            for _ in 0..20 {
                while let Some(record) = reader.next_record().unwrap() {
                    assert_eq!(record.seq, last + 1);
                    last = record.seq;
                }
            }
            assert_eq!(last, last_durable, "{first} bytes seen {looks} times");
        }
    }
}

#[test]
fn without_marks_a_reader_believes_what_later_frames_say() {
    let (fs, original) = killed_log(12);
    fs.put(&path("wal.lock"), None);
    let last_durable = original.last().unwrap().durable;
    assert!(last_durable > 0);
    assert_eq!(reader(&fs).map(|r| r.unwrap().seq).max(), Some(last_durable));
    fs.put(&path("telemetry.safe_seq"), Some(12_u64.to_le_bytes().to_vec()));
    assert_eq!(reader(&fs).count(), 12);
}

#[test]
fn an_absurd_length_is_refused_before_anything_is_allocated_for_it() {
    for length in [u32::MAX, 0x7fff_ffff, 1024 * 1024 + 1, 199, 1] {
        let (fs, _) = killed_log(3);
        let mut log = fs.bytes(&path("telemetry.wal")).unwrap();
        log.extend_from_slice(&length.to_be_bytes());
        log.extend_from_slice(&[b'x'; 300]);
        let bytes = log.len();
        fs.put(&path("telemetry.wal"), Some(log));
        let diagnosis = diagnose_on(&dir(&fs)).unwrap();
        assert_eq!(diagnosis.fault.unwrap().what, "its length is out of range");
        assert!(fs.largest_read() <= bytes, "{} bytes were asked for", fs.largest_read());
        fs.put(&path("telemetry.safe_seq"), Some(4_u64.to_le_bytes().to_vec()));
        let error = reader(&fs).find_map(Result::err).unwrap();
        assert_eq!(error.class(), ErrorClass::Damaged);
    }
}

#[test]
fn a_reader_takes_no_lock_and_needs_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let error = Reader::open(dir.path()).unwrap_err();
    assert!(matches!(error, WalError::NoLog { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    let held = Reader::open(dir.path()).unwrap();
    wal.close().unwrap();
    assert!(Wal::open(dir.path(), Options::default()).is_ok());
    drop(held);
}

/// The reader of `docs/src/spec/wal.md`: a length, then a JSON object.
#[test]
fn ten_lines_read_a_log() {
    let (fs, original) = killed_log(20);
    let log = fs.bytes(&path("telemetry.wal")).unwrap();
    let mut rest = &log[..];
    let mut seqs = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (payload, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        let frame: serde_json::Value = serde_json::from_slice(payload).unwrap();
        seqs.push(frame["seq"].as_u64().unwrap());
        rest = after;
    }
    assert_eq!(seqs, original.iter().map(|record| record.seq).collect::<Vec<_>>());
}

#[test]
fn a_log_that_was_cut_below_what_was_committed_is_not_read_as_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), Options::default()).unwrap();
    for i in 0..6 {
        wal.append(batch(&format!("b{i}"), 1)).wait().unwrap();
    }
    wal.close().unwrap();
    let log = dir.path().join("telemetry.wal");
    let whole = std::fs::read(&log).unwrap();
    let third = whole.windows(8).position(|bytes| bytes == b"{\"seq\":4").unwrap() - 4;
    for (length, good) in [(third, 3), (0, 0)] {
        std::fs::write(&log, &whole[..length]).unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        for seq in 1..=good {
            assert_eq!(reader.next_record().unwrap().unwrap().seq, seq);
        }
        let error = reader.next_record().unwrap_err();
        assert!(
            matches!(error, WalError::CommittedLost { last_good, committed: 6, .. } if last_good == good),
            "{error}"
        );
    }
    std::fs::remove_file(&log).unwrap();
    assert!(matches!(Reader::open(dir.path()), Err(WalError::LogLost { committed: 6, .. })));
}
