//! The SQLite file under a [`SqliteStore`](super::SqliteStore) and a [`LocalSource`](super::LocalSource): how it is
//! opened, what is in it, and whether it is still the one that was opened.

use std::{
    borrow::Cow,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use gate_core::identity::NodeId;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, config::DbConfig};

use super::{StoreError, record::Record};

/// `AGen`: what `file` and other programs know the database by.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"AGen");

/// Each entry takes the schema from its index to the next version. An entry that was released never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// The columns of a row, in the order of [`record::row`](super::record::row).
pub(super) const ROW: &str =
    "node_id, enrollment_ref, status, rollout_state, serial, created_at_ms, updated_at_ms FROM enrollment";

/// What goes wrong below, before it is known on which file.
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> StoreError {
        let source = match self {
            Self::Store(error) => return error,
            Self::Sqlite(source) => source,
        };
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
            Some(ErrorCode::NotADatabase) => StoreError::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt { path, source: source.into() },
            Some(_) | None => StoreError::Engine { path, source: source.into() },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sqlite(source)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes the path absolute, so that neither a change of directory nor a name that SQLite reads in its own way
/// (`:memory:`) leads elsewhere.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|source| StoreError::Io { doing: "find", path: path.to_owned(), source })
}

/// Makes an empty database file where there is none: directory 0700, file 0600.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    if path.exists() {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create directory", dir))?;
    // Closing any descriptor of a file drops this process's locks on it. So the file gets its name only after it is
    // closed: another thread may already have SQLite at work on that name.
    let file = tempfile::Builder::new()
        .prefix(".enrollment-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(io("create a file in", dir))?
        .into_temp_path();
    match file.persist_noclobber(path) {
        Ok(()) => fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir)),
        Err(_) if path.exists() => Ok(()),
        Err(error) => Err(io("create", path)(error.error)),
    }
}

/// Opens for reading and writing, and brings the schema up to date.
pub(super) fn open_writer(path: &Path, patience: Duration) -> Result<(Connection, Watch), StoreError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, patience, |connection| {
        // Another opener may be switching the same new file: SQLite then answers `busy` without waiting.
        let start = Instant::now();
        loop {
            match prepare_writer(connection, path).map_err(|fault| fault.at(path)) {
                Err(StoreError::Locked { .. }) if start.elapsed() < patience => thread::sleep(Duration::from_millis(5)),
                done => return done,
            }
        }
    })
}

/// Opens for reading a file that has the schema of this version.
pub(super) fn open_reader(path: &Path, patience: Duration) -> Result<(Connection, Watch), StoreError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, patience, |connection| {
        check_schema(connection, path).map_err(|fault| fault.at(path))
    })
}

fn open(
    path: &Path,
    access: OpenFlags,
    patience: Duration,
    prepare: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(Connection, Watch), StoreError> {
    let io = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return StoreError::Missing { path };
        }
        StoreError::Io { doing: "open", path, source }
    };
    let there = fs::metadata(path).map_err(io)?;
    refuse_irregular(path, &there).map_err(io)??;
    let before = FileId::of(&there);
    let connect = || {
        // Without SQLITE_OPEN_CREATE (the mode is ours to choose) and SQLITE_OPEN_URI (a path is a path).
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(patience)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    };
    let connection = connect().map_err(|source: rusqlite::Error| Fault::from(source).at(path))?;
    prepare(&connection)?;
    // Only now are the log and its index there.
    let watch = Watch::new(path).map_err(io)?;
    if watch.database.id != before {
        return Err(StoreError::Moved { path: path.to_owned() });
    }
    Ok((connection, watch))
}

/// Refuses what SQLite would wait for without end: the database, its log and the log's index are regular files.
fn refuse_irregular(path: &Path, there: &fs::Metadata) -> io::Result<Result<(), StoreError>> {
    if !there.is_file() {
        return Ok(Err(StoreError::NotAFile { path: path.to_owned() }));
    }
    for beside in names_beside(path)? {
        if fs::metadata(&beside).is_ok_and(|meta| !meta.is_file()) {
            return Ok(Err(StoreError::NotAFile { path: beside }));
        }
    }
    Ok(Ok(()))
}

/// The log and the log's index: beside the file itself, wherever links lead.
fn names_beside(path: &Path) -> io::Result<[PathBuf; 2]> {
    let real = fs::canonicalize(path)?;
    Ok(["-wal", "-shm"].map(|suffix| {
        let mut name = real.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }))
}

fn prepare_writer(connection: &Connection, path: &Path) -> Result<(), Fault> {
    // Nothing is written before it is known that the file is ours.
    schema_version(connection, path)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let version = usize::try_from(schema_version(&transaction, path)?).unwrap_or_default();
    for migration in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(migration)?;
    }
    if version < MIGRATIONS.len() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", latest_schema())?;
    }
    Ok(transaction.commit()?)
}

/// Refuses a file without the schema of this version.
pub(super) fn check_schema(connection: &Connection, path: &Path) -> Result<(), Fault> {
    match schema_version(connection, path)? {
        version if version == latest_schema() => Ok(()),
        0 => Err(StoreError::Missing { path: path.to_owned() }.into()),
        found => Err(StoreError::OlderSchema { path: path.to_owned(), found, known: latest_schema() }.into()),
    }
}

/// The version of the schema in a file that is ours or empty.
fn schema_version(connection: &Connection, path: &Path) -> Result<i32, Fault> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application_id = pragma("application_id")?;
    let version = pragma("user_version")?;
    let ours = match application_id {
        APPLICATION_ID => true,
        0 if version == 0 => {
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0
        }
        _ => false,
    };
    let path = || path.to_owned();
    if !ours {
        return Err(StoreError::Foreign { path: path(), application_id }.into());
    }
    if version > latest_schema() {
        return Err(StoreError::NewerSchema { path: path(), found: version, known: latest_schema() }.into());
    }
    Ok(version)
}

fn latest_schema() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

impl Record for rusqlite::Row<'_> {
    type Fault = Fault;

    fn optional(&self, index: usize) -> Result<Option<Cow<'_, str>>, Fault> {
        use rusqlite::types::ValueRef;
        Ok(match self.get_ref(index)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
            ValueRef::Integer(number) => Some(Cow::Owned(number.to_string())),
            ValueRef::Real(number) => Some(Cow::Owned(format!("{number:?}"))),
            ValueRef::Null => None,
        })
    }
}

/// An id that differs from `node_id` only in case.
pub(super) fn close_match(connection: &Connection, node_id: &NodeId) -> Result<Option<NodeId>, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT node_id FROM enrollment WHERE lower(node_id) = lower(?1) AND node_id <> ?1")?;
    let found = statement.query_row([node_id.as_str()], |row| row.get::<_, String>(0)).optional()?;
    Ok(found.and_then(|id| NodeId::parse(&id).ok()))
}

/// Which files a connection has open: the database, its log and the log's index. While a connection is open they stay
/// the same, unless somebody deletes or replaces them; a reader would then see an old state for ever.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    wal: PathBuf,
    shm: PathBuf,
    directory: fs::File,
    database: Stamp,
    beside: [Option<FileId>; 2],
    /// The directory when its names were last looked at, unless they may change without its stamp.
    settled: Option<Stamp>,
}

/// What became of the files that were opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    /// The database file was written to: a checkpoint, or a stranger.
    Touched,
    /// Deleted, replaced or emptied.
    Moved,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let [wal, shm] = names_beside(path)?;
        let mut watch = Self {
            directory: fs::File::open(wal.parent().unwrap_or(&wal))?,
            wal,
            shm,
            database: Stamp::of(&fs::metadata(path)?),
            path: path.to_owned(),
            beside: [None; 2],
            settled: None,
        };
        watch.beside = watch.ids_beside();
        Ok(watch)
    }

    /// Two cheap system calls as long as nobody makes or removes names in the directory.
    pub(super) fn look_again(&mut self) -> Look {
        let database = match self.look_at_database() {
            Look::Same => Look::Same,
            moved_or_touched @ (Look::Moved | Look::Touched) => return moved_or_touched,
        };
        // Stamped before the names are looked at: a change in between is seen by the next call.
        let directory = self.directory.metadata().ok().map(|meta| Stamp::of(&meta));
        if directory.is_some() && directory == self.settled {
            return database;
        }
        if self.ids_beside() != self.beside {
            return Look::Moved;
        }
        self.settled = directory.filter(Stamp::is_settled);
        database
    }

    /// Looks at all of them.
    pub(super) fn look(&self) -> Look {
        if self.ids_beside() == self.beside { self.look_at_database() } else { Look::Moved }
    }

    pub(super) fn same_files_as(&self, other: &Self) -> bool {
        self.database.id == other.database.id && self.beside == other.beside
    }

    fn look_at_database(&self) -> Look {
        match fs::metadata(&self.path).map(|meta| Stamp::of(&meta)) {
            Ok(stamp) if stamp == self.database => Look::Same,
            // SQLite would take changes into the log of one that was emptied, and nobody would find them again.
            Ok(stamp) if stamp.id == self.database.id && stamp.size > 0 => Look::Touched,
            Ok(_) | Err(_) => Look::Moved,
        }
    }

    fn ids_beside(&self) -> [Option<FileId>; 2] {
        [&self.wal, &self.shm].map(|path| fs::metadata(path).ok().map(|meta| FileId::of(&meta)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// A file and the last change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    id: FileId,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { id: FileId::of(meta), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }

    /// Whether a change from now on would have another time. Kernels before 6.13 stamp in ticks of up to 10 ms.
    fn is_settled(&self) -> bool {
        const TICKS: Duration = Duration::from_millis(50);
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        changed.and_then(|changed| SystemTime::now().duration_since(changed).ok()).is_some_and(|age| age > TICKS)
    }
}
