//! A file system in memory that knows what a crash keeps, and fails the operation it is told to.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::wal::{
    SEGMENT_BYTES,
    fs::{File, Fs, How},
};

const SECTOR: usize = 64; // far below 512, so that small test frames are torn in the middle

/// What happens to the operation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// Nothing is done. A sync that fails so also forgets what was dirty, and later syncs succeed.
    Error,
    /// A write stops half way.
    Short,
    /// A write leaves some of its sectors.
    Torn,
    /// The machine stops in the middle of it; every later operation fails.
    Crash,
}

/// What of the un-synced data a crash keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All: only the process died.
    All,
    /// Nothing.
    Synced,
    /// A prefix of it, file by file.
    Prefix(u64),
    /// Some sectors of it, file by file.
    Mixed(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => {
                let start = usize::try_from(*offset).unwrap();
                bytes.resize(bytes.len().max(start + new.len()), 0);
                bytes[start..start + new.len()].copy_from_slice(new);
            }
            Self::Truncate(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
        }
    }

    fn sectors(&self) -> Vec<Self> {
        match self {
            Self::Write(offset, new) => {
                let mut pieces = Vec::new();
                let mut at = 0;
                while at < new.len() {
                    let absolute = usize::try_from(*offset).unwrap() + at;
                    let end = (at + SECTOR - absolute % SECTOR).min(new.len());
                    pieces.push(Self::Write(absolute as u64, new[at..end].to_vec()));
                    at = end;
                }
                pieces
            }
            Self::Truncate(_) => vec![self.clone()],
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    on_disk: Vec<u8>,
    cached: Vec<u8>,
    dirty: Vec<Change>,
    locked: bool,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.dirty.push(change);
    }
}

#[derive(Debug, Clone)]
enum Entry {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Entry {
    fn apply(&self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => {
                entries.insert(path.clone(), *inode);
            }
            Self::Remove(path) => drop(entries.remove(path)),
            Self::Rename(from, to) => {
                if let Some(inode) = entries.remove(from) {
                    entries.insert(to.clone(), inode);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    entries: BTreeMap<PathBuf, usize>,
    entries_on_disk: BTreeMap<PathBuf, usize>,
    dirty_entries: Vec<Entry>,
    operations: u64,
    fault: Option<(u64, Failing)>,
    crashed: bool,
    fired: bool,
    fail_syncs: bool,
    fail_removes: bool,
    largest_read: usize,
}

#[derive(Debug, Clone)]
pub(super) struct MemFs {
    disk: Arc<Mutex<Disk>>,
    /// How large the segments are of a log that a test opens on it.
    pub(super) segment_bytes: u64,
    /// Held by a test to stop syncs.
    pub(super) gate: Arc<Mutex<()>>,
}

impl Default for MemFs {
    fn default() -> Self {
        Self { disk: Arc::default(), segment_bytes: SEGMENT_BYTES, gate: Arc::default() }
    }
}

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound.max(1) as u64).unwrap()
    }
}

impl MemFs {
    /// One that a test opens a log with segments of this size on.
    pub(super) fn with_segments(segment_bytes: u64) -> Self {
        Self { segment_bytes, ..Self::default() }
    }

    /// The same files, for a log with segments of this size.
    pub(super) fn resized(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Makes the `nth` operation from now fail (1 is the next).
    pub(super) fn fail(&self, nth: u64, failing: Failing) {
        let mut disk = self.disk();
        disk.fault = Some((disk.operations + nth, failing));
        disk.fired = false;
    }

    pub(super) fn fail_syncs(&self) {
        self.disk().fail_syncs = true;
    }

    pub(super) fn fail_removes(&self, fail: bool) {
        self.disk().fail_removes = fail;
    }

    /// The largest buffer that a read was given.
    pub(super) fn largest_read(&self) -> usize {
        self.disk().largest_read
    }

    /// Whether the failure that was asked for has happened.
    pub(super) fn fired(&self) -> bool {
        self.disk().fired
    }

    /// The file system as the next process finds it: nothing lost, nothing locked.
    pub(super) fn snapshot(&self) -> Self {
        self.after(Keep::All)
    }

    /// The file system after a crash.
    pub(super) fn after(&self, keep: Keep) -> Self {
        let mut disk = self.disk().clone();
        (disk.fault, disk.crashed, disk.fired, disk.fail_syncs) = (None, false, false, false);
        for inode in &mut disk.inodes {
            inode.locked = false;
        }
        let mut random = match keep {
            Keep::All => return self.on(disk),
            Keep::Synced => Random(0),
            Keep::Prefix(seed) | Keep::Mixed(seed) => Random(seed),
        };
        let kept = match keep {
            Keep::All | Keep::Synced => 0,
            Keep::Prefix(_) | Keep::Mixed(_) => random.below(disk.dirty_entries.len() + 1),
        };
        for entry in disk.dirty_entries.drain(..).take(kept) {
            entry.apply(&mut disk.entries_on_disk);
        }
        disk.entries = disk.entries_on_disk.clone();
        for inode in &mut disk.inodes {
            let changes: Vec<Change> = std::mem::take(&mut inode.dirty);
            match keep {
                Keep::All | Keep::Synced => {}
                Keep::Prefix(_) => {
                    let whole = random.below(changes.len() + 1);
                    for change in &changes[..whole] {
                        change.apply(&mut inode.on_disk);
                    }
                    if let Some(Change::Write(offset, bytes)) = changes.get(whole) {
                        let cut = random.below(bytes.len() + 1);
                        if cut > 0 {
                            Change::Write(*offset, bytes[..cut].to_vec()).apply(&mut inode.on_disk);
                        }
                    }
                }
                Keep::Mixed(_) => {
                    for piece in changes.iter().flat_map(Change::sectors) {
                        if random.below(2) == 0 {
                            piece.apply(&mut inode.on_disk);
                        }
                    }
                }
            }
            inode.cached = inode.on_disk.clone();
        }
        self.on(disk)
    }

    fn on(&self, disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)), segment_bytes: self.segment_bytes, gate: Arc::default() }
    }

    /// A file's bytes, as a reader sees them.
    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.entries.get(path).map(|inode| disk.inodes[*inode].cached.clone())
    }

    /// Every file whose name starts with `prefix`.
    pub(super) fn files(&self, prefix: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk();
        let named = disk
            .entries
            .iter()
            .filter(|(path, _)| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
        named.map(|(path, inode)| (path.clone(), disk.inodes[*inode].cached.clone())).collect()
    }

    /// Puts a file there, durably; `None` takes it away.
    pub(super) fn put(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut disk = self.disk();
        disk.entries.remove(path);
        if let Some(bytes) = bytes {
            let inode = disk.inodes.len();
            disk.inodes.push(Inode { on_disk: bytes.clone(), cached: bytes, ..Inode::default() });
            disk.entries.insert(path.to_owned(), inode);
        }
        disk.entries_on_disk = disk.entries.clone();
        disk.dirty_entries.clear();
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// Counts an operation; says how it is to fail.
    fn operation(disk: &mut Disk) -> io::Result<Option<Failing>> {
        if disk.crashed {
            return Err(io::Error::other("crashed"));
        }
        disk.operations += 1;
        match disk.fault {
            Some((nth, failing)) if nth == disk.operations => {
                disk.fired = true;
                disk.crashed = failing == Failing::Crash;
                Ok(Some(failing))
            }
            _ => Ok(None),
        }
    }

    /// For operations that are done whole or not at all.
    fn simple(disk: &mut Disk) -> io::Result<()> {
        match Self::operation(disk)? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("injected")),
        }
    }
}

impl Fs for MemFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Self::simple(&mut self.disk())
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        Self::simple(&mut disk)?;
        let inode = match disk.entries.get(path).copied() {
            Some(_) if how == How::New => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(inode) => {
                if how == How::Fresh {
                    disk.inodes[inode].change(Change::Truncate(0));
                }
                inode
            }
            None if how == How::Read => return Err(io::ErrorKind::NotFound.into()),
            None => {
                let inode = disk.inodes.len();
                disk.inodes.push(Inode::default());
                disk.entries.insert(path.to_owned(), inode);
                disk.dirty_entries.push(Entry::Link(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(MemFile { fs: self.clone(), inode, holds_lock: Mutex::new(false) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        Self::simple(&mut disk)?;
        let entry = Entry::Rename(from.to_owned(), to.to_owned());
        entry.apply(&mut disk.entries);
        disk.dirty_entries.push(entry);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        Self::simple(&mut disk)?;
        if disk.fail_removes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let entry = Entry::Remove(path.to_owned());
        entry.apply(&mut disk.entries);
        disk.dirty_entries.push(entry);
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        Self::simple(&mut disk)?;
        let inside = disk.entries.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        Self::simple(&mut disk)?;
        for entry in std::mem::take(&mut disk.dirty_entries) {
            entry.apply(&mut disk.entries_on_disk);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemFile {
    fs: MemFs,
    inode: usize,
    holds_lock: Mutex<bool>,
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.fs.disk();
        MemFs::simple(&mut disk)?;
        Ok(disk.inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.fs.disk();
        MemFs::simple(&mut disk)?;
        disk.largest_read = disk.largest_read.max(buf.len());
        let bytes = &disk.inodes[self.inode].cached;
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let got = rest.len().min(buf.len());
        buf[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let failing = MemFs::operation(&mut disk)?;
        let seed = disk.operations;
        let inode = &mut disk.inodes[self.inode];
        let whole = Change::Write(offset, bytes.to_vec());
        match failing {
            None => {
                inode.change(whole);
                return Ok(());
            }
            Some(Failing::Error) => {}
            Some(Failing::Short) => inode.change(Change::Write(offset, bytes[..bytes.len() / 2].to_vec())),
            Some(Failing::Torn) => {
                let mut random = Random(seed);
                whole.sectors().into_iter().filter(|_| random.below(2) == 0).for_each(|piece| inode.change(piece));
            }
            Some(Failing::Crash) => inode.change(whole),
        }
        Err(io::Error::other("injected"))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let failing = MemFs::operation(&mut disk)?;
        if matches!(failing, None | Some(Failing::Crash)) {
            disk.inodes[self.inode].change(Change::Truncate(len));
        }
        failing.map_or(Ok(()), |_| Err(io::Error::other("injected")))
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.fs.gate.lock().unwrap());
        let mut disk = self.fs.disk();
        let failing = MemFs::operation(&mut disk)?;
        let lies = disk.fail_syncs;
        let inode = &mut disk.inodes[self.inode];
        match failing {
            None if !lies => {
                for change in std::mem::take(&mut inode.dirty) {
                    change.apply(&mut inode.on_disk);
                }
                return Ok(());
            }
            // What ext4 and XFS do: the pages are clean now, and not on the disk.
            None | Some(Failing::Error | Failing::Short | Failing::Torn) => inode.dirty.clear(),
            Some(Failing::Crash) => {}
        }
        Err(io::Error::other("injected"))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.fs.disk();
        MemFs::simple(&mut disk)?;
        Ok(disk.entries.get(path) == Some(&self.inode))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut disk = self.fs.disk();
        MemFs::simple(&mut disk)?;
        let inode = &mut disk.inodes[self.inode];
        if inode.locked {
            return Ok(false);
        }
        inode.locked = true;
        *self.holds_lock.lock().unwrap() = true;
        Ok(true)
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if *self.holds_lock.lock().unwrap() {
            self.fs.disk().inodes[self.inode].locked = false;
        }
    }
}
