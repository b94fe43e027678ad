//! Saying how far the reading of a log has come.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fs::{File, Fs, How, RealFs},
    segment::Segment,
};

/// A log that is to be read: its directory and, if wanted, who is told how far the reading has come.
///
/// A path is one that nobody is told of, and costs nothing more than the reading.
pub struct Walk {
    pub(super) dir: PathBuf,
    told: Option<Arc<Told>>,
}

/// Called with the byte that was read up to, and with how many there are.
type Told = dyn Fn(u64, u64) + Send + Sync;

impl Walk {
    /// Calls `told` after each read of the log (256 KiB or a frame) with the byte that it came to, over all its segments,
    /// and with how many there were when the segment was opened. A byte may be read twice.
    pub fn told(dir: impl AsRef<Path>, told: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self { told: Some(Arc::new(told)), ..Self::from(dir) }
    }

    pub(super) fn fs(&self) -> Arc<dyn Fs> {
        match &self.told {
            Some(told) => Arc::new(ToldFs(Arc::clone(told))),
            None => Arc::new(RealFs),
        }
    }
}

impl<P: AsRef<Path>> From<P> for Walk {
    fn from(dir: P) -> Self {
        Self { dir: dir.as_ref().to_owned(), told: None }
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The file system of the machine, and who is told of what is read of a log.
struct ToldFs(Arc<Told>);

impl fmt::Debug for ToldFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToldFs")
    }
}

impl Fs for ToldFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.create_dir(dir)
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let file = RealFs.open(path, how)?;
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Ok(file);
        };
        let Some(segment) = Segment::named(name).filter(|_| how == How::Read) else { return Ok(file) };
        let (mut before, mut bytes) = (0, 0);
        let others = self.names(dir)?.into_iter().filter_map(|name| Segment::named(&name));
        for other in others.filter(|other| *other != segment && *other != Segment::Live) {
            // One that was pruned meanwhile counts for nothing.
            let len = std::fs::metadata(dir.join(other.to_string())).map_or(0, |other| other.len());
            bytes += len;
            before += if other < segment { len } else { 0 };
        }
        let len = file.len()?;
        Ok(Arc::new(ToldFile { file, before, bytes: bytes + len, told: Arc::clone(&self.0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFs.names(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }
}

struct ToldFile {
    file: Arc<dyn File>,
    /// Bytes of the segments before it.
    before: u64,
    /// Bytes of all segments when it was opened.
    bytes: u64,
    told: Arc<Told>,
}

impl fmt::Debug for ToldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl File for ToldFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(offset, buf)?;
        (self.told)(self.before + offset + got as u64, self.bytes);
        Ok(got)
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
