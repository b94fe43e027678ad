//! The files of one log.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    WalError,
    fs::{File, Fs, How, read_full},
    segment::Segment,
    walk::Told,
};

pub(super) const SAFE_SEQ: &str = "telemetry.safe_seq";
const LOCK: &str = "wal.lock";
const DRAIN_LOCK: &str = "drain.lock";
/// More bytes than a file of numbers has.
const NUMBERS: usize = 16;
/// How much is copied at a time.
const COPY_BYTES: usize = 1024 * 1024;

/// A log's directory.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) path: PathBuf,
    /// Sealed segments that are not looked at.
    without: Vec<u64>,
    /// Who is told how far the reading has come.
    pub(super) told: Option<Told>,
}

/// What `telemetry.safe_seq` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SafeSeq {
    Absent,
    /// It has not 8 bytes.
    Malformed,
    Is(u64),
}

impl SafeSeq {
    pub(super) const fn value(self) -> u64 {
        match self {
            Self::Is(seq) => seq,
            Self::Absent | Self::Malformed => 0,
        }
    }
}

/// The exclusive right to write, and the live durable mark in the same file.
#[derive(Debug)]
pub(super) struct Lock {
    file: Arc<dyn File>,
    path: PathBuf,
}

impl Lock {
    /// Says that every frame up to `seq` is durable.
    pub(super) fn mark(&self, seq: u64) -> io::Result<()> {
        self.file.write_at(0, &seq.to_le_bytes())
    }

    /// Whether the lock file is still the one that is held: another writer could hold a new one.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        self.file.is_at(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What a copy does with a run of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeros {
    /// Writes it.
    AreWritten,
    /// Nothing: the file has its length, and is zero where it was not written.
    AreThere,
}

impl Dir {
    pub(super) fn new(fs: Arc<dyn Fs>, path: &Path) -> Self {
        Self { fs, path: path.to_owned(), without: Vec::new(), told: None }
    }

    /// The same as if these sealed segments were not there.
    pub(super) fn without(&self, segments: &[u64]) -> Self {
        Self { without: segments.to_vec(), ..self.clone() }
    }

    pub(super) fn file(&self, name: impl fmt::Display) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// The first frames of the sealed segments, in order.
    pub(super) fn sealed(&self) -> Result<Vec<u64>, WalError> {
        let names = self.fs.names(&self.path).map_err(WalError::io("list", &self.path))?;
        let first_of = |name: &String| match Segment::named(name)? {
            Segment::Sealed(first) => Some(first),
            Segment::Live => None,
        };
        let mut sealed: Vec<u64> =
            names.iter().filter_map(first_of).filter(|first| !self.without.contains(first)).collect();
        sealed.sort_unstable();
        Ok(sealed)
    }

    /// The first sealed segment that begins with this frame or a later one, else the live one.
    pub(super) fn segment_from(&self, seq: u64) -> Result<Segment, WalError> {
        Ok(self.sealed()?.into_iter().find(|first| *first >= seq).map_or(Segment::Live, Segment::Sealed))
    }

    pub(super) fn safe_seq_path(&self) -> PathBuf {
        self.file(SAFE_SEQ)
    }

    /// Takes the right to write, before anything is read.
    pub(super) fn lock(&self) -> Result<Lock, WalError> {
        self.hold(LOCK)?.map_err(|pid| WalError::Locked { dir: self.path.clone(), pid })
    }

    /// Keeps writers away, where there was one before; makes nothing.
    pub(super) fn lock_if_there(&self) -> Result<Option<Arc<dyn File>>, WalError> {
        let path = self.file(LOCK);
        let Some(file) = self.open_existing(&path)? else { return Ok(None) };
        if !file.try_lock().map_err(WalError::io("lock", &path))? {
            return Err(WalError::Locked { dir: self.path.clone(), pid: holder(&*file) });
        }
        Ok(Some(file))
    }

    /// Takes the right to drain.
    pub(super) fn lock_drain(&self) -> Result<Lock, WalError> {
        self.hold(DRAIN_LOCK)?.map_err(|pid| WalError::DrainLocked { dir: self.path.clone(), pid })
    }

    /// Takes the exclusive lock on a file; the inner error is the process id of who has it, where it is known.
    fn hold(&self, name: &str) -> Result<Result<Lock, Option<u32>>, WalError> {
        let path = self.file(name);
        let file = self.fs.open(&path, How::Write).map_err(WalError::io("open", &path))?;
        if !file.try_lock().map_err(WalError::io("lock", &path))? {
            return Ok(Err(holder(&*file)));
        }
        file.write_at(8, &std::process::id().to_le_bytes()).map_err(WalError::io("write", &path))?;
        Ok(Ok(Lock { file, path }))
    }

    /// The live durable mark, 0 where there is none.
    pub(super) fn live_mark(&self) -> Result<u64, WalError> {
        let bytes = self.read_small(&self.file(LOCK), NUMBERS)?.unwrap_or_default();
        Ok(bytes.first_chunk::<8>().map_or(0, |mark| u64::from_le_bytes(*mark)))
    }

    pub(super) fn safe_seq(&self) -> Result<SafeSeq, WalError> {
        Ok(match self.read_small(&self.safe_seq_path(), NUMBERS)? {
            None => SafeSeq::Absent,
            Some(bytes) => {
                <[u8; 8]>::try_from(bytes).map_or(SafeSeq::Malformed, |le| SafeSeq::Is(u64::from_le_bytes(le)))
            }
        })
    }

    pub(super) fn publish_safe_seq(&self, seq: u64) -> Result<(), WalError> {
        self.publish(SAFE_SEQ, &seq.to_le_bytes())
    }

    /// Replaces a small file, durably and atomically.
    pub(super) fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), WalError> {
        let path = self.file(name);
        let temp = self.file(format_args!("{name}.tmp"));
        let file = self.fs.open(&temp, How::Fresh).map_err(WalError::io("create", &temp))?;
        file.write_at(0, bytes).map_err(WalError::io("write", &temp))?;
        file.sync().map_err(WalError::io("sync", &temp))?;
        self.fs.rename(&temp, &path).map_err(WalError::io("replace", &path))?;
        self.sync()
    }

    pub(super) fn sync(&self) -> Result<(), WalError> {
        self.fs.sync_dir(&self.path).map_err(WalError::io("sync", &self.path))
    }

    /// A segment for reading; None where there is none.
    pub(super) fn segment(&self, segment: Segment) -> Result<Option<Arc<dyn File>>, WalError> {
        self.open_existing(&self.file(segment))
    }

    /// What was found of a segment: one that is listed, and is not there, is an error.
    pub(super) fn found(
        &self,
        segment: Segment,
        found: Option<Arc<dyn File>>,
    ) -> Result<Option<Arc<dyn File>>, WalError> {
        match (segment, found) {
            (Segment::Sealed(_), None) => {
                Err(WalError::io("open", &self.file(segment))(io::Error::other("it is listed, and leads nowhere")))
            }
            (Segment::Live, None) => Ok(None),
            (_, Some(found)) => Ok(Some(found)),
        }
    }

    /// Bytes of a segment, 0 where there is none.
    pub(super) fn bytes(&self, segment: Segment) -> Result<u64, WalError> {
        let Some(file) = self.segment(segment)? else { return Ok(0) };
        file.len().map_err(WalError::io("read", &self.file(segment)))
    }

    /// Deletes a sealed segment, durably: the next one goes only after it.
    pub(super) fn remove(&self, first: u64) -> Result<(), WalError> {
        let path = self.file(Segment::Sealed(first));
        match self.fs.remove(&path) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(WalError::io("delete", &path))?,
        }
        self.sync()
    }

    pub(super) fn live_for_writing(&self) -> Result<Arc<dyn File>, WalError> {
        let path = self.file(Segment::Live);
        self.fs.open(&path, How::Write).map_err(WalError::io("open", &path))
    }

    pub(super) fn holds(&self, name: impl fmt::Display) -> Result<bool, WalError> {
        Ok(self.open_existing(&self.file(name))?.is_some())
    }

    /// Copies `from` from `offset` on into a new file `name`, which is there whole and durable or not at all.
    pub(super) fn copy_aside(&self, from: &Path, offset: u64, name: impl fmt::Display) -> Result<(), WalError> {
        let path = self.file(&name);
        let temp = self.file(format_args!("{name}.tmp"));
        let source = self.fs.open(from, How::Read).map_err(WalError::io("open", from))?;
        let end = source.len().map_err(WalError::io("read", from))?;
        let copy = self.fs.open(&temp, How::Fresh).map_err(WalError::io("create", &temp))?;
        // Its whole length at once, and then what is not zero: a tail may be gigabytes of zeros that no disk holds.
        copy.truncate(end.saturating_sub(offset)).map_err(WalError::io("extend", &temp))?;
        self.copy((from, &*source), offset..end, (&temp, &*copy), 0, Zeros::AreThere)?;
        copy.sync().map_err(WalError::io("sync", &temp))?;
        self.fs.rename(&temp, &path).map_err(WalError::io("rename", &path))?;
        self.sync()
    }

    /// Copies `range` of one file to `at` of another; into itself, it makes the bytes dirty again.
    pub(super) fn copy(
        &self,
        (from, source): (&Path, &dyn File),
        range: std::ops::Range<u64>,
        (to, copy): (&Path, &dyn File),
        at: u64,
        zeros: Zeros,
    ) -> Result<(), WalError> {
        let mut chunk = vec![0; COPY_BYTES];
        let mut offset = range.start;
        while offset < range.end {
            let want = usize::try_from(range.end - offset).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let got = read_full(source, offset, chunk.get_mut(..want).unwrap_or_default())
                .map_err(WalError::io("read", from))?;
            if got < want {
                return Err(WalError::io("read", from)(io::ErrorKind::UnexpectedEof.into()));
            }
            let bytes = chunk.get(..got).unwrap_or_default();
            if zeros == Zeros::AreWritten || bytes.iter().any(|byte| *byte != 0) {
                copy.write_at(at + (offset - range.start), bytes).map_err(WalError::io("write", to))?;
            }
            offset += got as u64;
        }
        Ok(())
    }

    fn open_existing(&self, path: &Path) -> Result<Option<Arc<dyn File>>, WalError> {
        match self.fs.open(path, How::Read) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(WalError::io("open", path)(e)),
        }
    }

    /// Up to `limit` bytes of a file: enough to see that it is too long.
    pub(super) fn read_small(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, WalError> {
        let Some(file) = self.open_existing(path)? else { return Ok(None) };
        let mut bytes = vec![0; limit];
        let got = read_full(&*file, 0, &mut bytes).map_err(WalError::io("read", path))?;
        bytes.truncate(got);
        Ok(Some(bytes))
    }
}

/// The process that holds a lock, where it is known.
fn holder(lock: &dyn File) -> Option<u32> {
    let mut held = [0; 12];
    let got = read_full(lock, 0, &mut held).unwrap_or(0);
    held.last_chunk::<4>().map(|pid| u32::from_le_bytes(*pid)).filter(|pid| got == 12 && *pid != 0)
}
