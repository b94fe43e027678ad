//! The few file operations the log needs, so that a test can fail each of them.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::{fmt::Debug, fs, io, path::Path, sync::Arc};

/// A file system.
pub(super) trait Fs: Debug + Send + Sync {
    /// Creates `dir` and its missing parents, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in `dir` that are text; none where there is no such directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the entries of `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// To read; it must exist.
    Read,
    /// To read and write; created where absent, kept as it is where present.
    Write,
    /// To read and write; created where absent, emptied where present.
    Fresh,
    /// To read and write; it must not exist.
    New,
}

/// Appends a line, with its newline at the end, durably. What a crash left of one before is cut off.
pub(super) fn append_line(fs: &dyn Fs, path: &Path, line: &[u8]) -> io::Result<()> {
    let file = fs.open(path, How::Write)?;
    let len = file.len()?;
    let mut end = len;
    let mut window = [0; 4096];
    while let Some(start) = end.checked_sub(1).map(|last| last - last % window.len() as u64) {
        let got = read_full(&*file, start, &mut window)?;
        let held = window.get(..got).unwrap_or_default();
        if let Some(newline) = memchr::memrchr(b'\n', held) {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < len {
        file.truncate(end)?;
    }
    file.write_at(end, line)?;
    file.sync()?;
    fs.sync_dir(crate::file::directory_of(path))
}

/// Reads until `buf` is full or the file ends.
pub(super) fn read_full(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + filled as u64, rest)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

/// An open file. Every access names its offset: there is no cursor to get wrong.
pub(super) trait File: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `buf.len()` bytes; 0 is the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Whether `path` still names this file: nobody has removed or replaced it.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
    /// Takes the exclusive lock, held until the file is dropped; false when another holder has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The file system of the machine.
#[derive(Debug)]
pub(super) struct RealFs;

impl Fs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.exists()).collect();
        // What was asked and decided is nobody else's to read.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        missing.iter().filter_map(|made| made.parent()).try_for_each(|parent| self.sync_dir(parent))
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        // Opening a pipe would wait for its other end.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        let mut options = fs::OpenOptions::new();
        options.read(true);
        if how != How::Read {
            let is_new = how == How::New;
            options.write(true).create(true).create_new(is_new).truncate(how == How::Fresh).mode(0o600);
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(here(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(here(dir))?.sync_all()
    }
}

/// A directory by a name that can be opened: the empty path is this one.
fn here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::os::unix::fs::FileExt::read_at(&self.0, buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let here = self.0.metadata()?;
        match fs::metadata(path) {
            Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}
