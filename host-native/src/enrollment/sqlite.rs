use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    Change, Changes, IfActive, Mutation, Query, Row, Store, StoreError,
    database::{self, Fault, Look, ROW, Watch},
    ledger::{self, Ledger},
    record::{self, signed},
    request::{By, Request},
    rollout::RolloutStore,
};

/// The columns of a change, in the order of [`record::change`] and [`record::revised`].
const CHANGE: &str = "node_id, serial, action, who, at_ms, before_ref, before_status, before_rollout_state,
                      after_ref, after_status, after_rollout_state, change_id FROM history";

/// How long a call waits for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections kept open for reading between calls. To open one reads the schema, which takes longer than a look-up.
const IDLE_READERS: usize = 32;

/// A [`Store`] in one SQLite file on a local disk. Any number of processes may use the file at once.
///
/// A change is on disk when the call that made it returns (write-ahead journal, `synchronous = FULL`).
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    watch: Watch,
    access: Access,
    /// Writes, where the store may. Keeps the log and its index from being removed by whoever closes the file last.
    pub(super) keeper: Mutex<Connection>,
    /// Readers never wait for the writer.
    readers: Mutex<Vec<Connection>>,
}

impl SqliteStore {
    /// Opens the file, or creates it with mode 0600, and its directory, if missing, with mode 0700.
    ///
    /// # Errors
    /// The file is another program's, damaged, locked for longer than five seconds, or of a later version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        database::create(&path)?;
        Self::to_change(path)
    }

    /// Opens the file, which must be there: a mistyped path is an error, not an empty fleet.
    ///
    /// # Errors
    /// There is no such file, or as for [`Self::open`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        // What a full disk leaves of a store that was being made.
        if std::fs::metadata(&path).is_ok_and(|there| there.len() == 0) {
            return Err(StoreError::Missing { path });
        }
        Self::to_change(path)
    }

    fn to_change(path: PathBuf) -> Result<Self, StoreError> {
        let (keeper, watch) = database::open_writer(&path, PATIENCE)?;
        Ok(Self { path, watch, access: Access::ReadWrite, keeper: Mutex::new(keeper), readers: Mutex::default() })
    }

    /// Opens the file for reading only: every change is refused.
    ///
    /// # Errors
    /// There is no such file, or as for [`Self::open`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        let (keeper, watch) = database::open_reader(&path, PATIENCE)?;
        Ok(Self { path, watch, access: Access::ReadOnly, keeper: Mutex::new(keeper), readers: Mutex::default() })
    }

    fn change(&self, node_id: &NodeId, request: &Request<'_>, who: &str, now_ms: u64) -> Result<Mutation, StoreError> {
        let by = By::new(who, now_ms)?;
        request.check()?;
        self.transact(async |transaction| ledger::change(transaction, node_id, request, by).await)
    }

    /// One transaction, which is on disk when the call returns.
    pub(super) fn transact<T>(
        &self,
        work: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        match self.access {
            Access::ReadWrite => self.check_files()?,
            Access::ReadOnly => return Err(StoreError::ReadOnly { path: self.path.clone() }),
        }
        let begun = Instant::now();
        let mut writer = lock(&self.keeper);
        // For another process and for the threads before this one together: each that waits anew would add its own.
        let patience = PATIENCE.saturating_sub(begun.elapsed());
        writer.busy_timeout(patience).map_err(|source| Fault::from(source).at(&self.path))?;
        let before = writer.total_changes();
        let attempt = || -> Result<T, Fault> {
            let mut transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // It may have waited long for its turn: a checkpoint would give a file that was emptied meanwhile a size again.
            self.check_files()?;
            // A newer version may have migrated the file since it was opened.
            database::check_schema(&transaction, &self.path)?;
            let outcome = without_waiting(work(&mut transaction))?;
            transaction.commit()?;
            Ok(outcome)
        };
        let outcome = attempt().map_err(|fault| fault.at(&self.path))?;
        if writer.total_changes() != before {
            // Into the database itself, so that a journal that goes missing takes no revoke with it. Never waits: the
            // change is durable already, and what a reader holds up the next change moves.
            let moved = writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            if let Err(error) = moved {
                tracing::warn!("the change is on disk, in the journal of `{}` alone: {error}", self.path.display());
            }
        }
        Ok(outcome)
    }

    pub(super) fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.check_files()?;
        let idle = lock(&self.readers).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => {
                let (reader, watch) = database::open_reader(&self.path, PATIENCE)?;
                if !watch.same_files_as(&self.watch) {
                    return Err(StoreError::Moved { path: self.path.clone() });
                }
                reader
            }
        };
        // A connection that failed is not used again.
        let answer = query(&reader).map_err(|fault| fault.at(&self.path))?;
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        Ok(answer)
    }

    /// What was opened must still be what the path leads to: a deleted file would take changes to nowhere.
    fn check_files(&self) -> Result<(), StoreError> {
        match self.watch.look() {
            Look::Same | Look::Touched => Ok(()),
            Look::Moved => Err(StoreError::Moved { path: self.path.clone() }),
        }
    }
}

#[derive(Debug)]
enum Access {
    ReadWrite,
    ReadOnly,
}

impl Store for SqliteStore {
    fn enroll(
        &self,
        node_id: &NodeId,
        enrollment_ref: &EnrollmentRef,
        if_active: IfActive,
        who: &str,
        now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        self.change(node_id, &Request::Enroll { enrollment_ref, if_active }, who, now_ms)
    }

    fn revoke(&self, node_id: &NodeId, who: &str, now_ms: u64) -> Result<Mutation, StoreError> {
        self.change(node_id, &Request::Revoke, who, now_ms)
    }

    fn set_rollout(
        &self,
        node_id: &NodeId,
        rollout_state: &RolloutState,
        who: &str,
        now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        self.change(node_id, &Request::SetRollout(rollout_state), who, now_ms)
    }

    fn rows(&self, nodes: &[NodeId]) -> Result<Vec<Row>, StoreError> {
        self.read(|reader| {
            // Prepared once, as the select is: to parse both takes as long as to read a row.
            reader.prepare_cached("BEGIN")?.execute([])?;
            let rows = nodes.iter().filter_map(|node_id| select(reader, node_id).transpose()).collect();
            reader.prepare_cached("COMMIT")?.execute([])?;
            rows
        })
    }

    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let after = query.after.as_ref().map_or("", NodeId::as_str);
        let limit = signed(query.limit);
        self.read(|reader| {
            let mut listed = Vec::new();
            let mut visit = |row: Row| {
                listed.push(row);
                ControlFlow::Continue(())
            };
            match &query.status {
                Some(status) => {
                    let sql = format!("SELECT {ROW} WHERE status = ?1 AND node_id > ?2 ORDER BY node_id LIMIT ?3");
                    scan(reader, &sql, params![status.as_str(), after, limit], &mut visit)?;
                }
                None => {
                    let sql = format!("SELECT {ROW} WHERE node_id > ?1 ORDER BY node_id LIMIT ?2");
                    scan(reader, &sql, params![after, limit], &mut visit)?;
                }
            }
            Ok(listed)
        })
    }

    fn count(&self, status: Option<&Status>) -> Result<u64, StoreError> {
        self.read(|reader| {
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            let rows = match status {
                Some(status) => {
                    reader.query_row("SELECT count(*) FROM enrollment WHERE status = ?1", [status.as_str()], count)?
                }
                None => reader.query_row("SELECT count(*) FROM enrollment", [], count)?,
            };
            Ok(u64::try_from(rows).unwrap_or_default())
        })
    }

    fn for_each(&self, visit: &mut dyn FnMut(Enrollment) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.read(|reader| {
            scan(reader, &format!("SELECT {ROW} ORDER BY node_id"), [], &mut |row| visit(row.enrollment))
        })
    }

    fn history(&self, node_id: &NodeId, after_serial: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        self.read(|reader| {
            let sql = format!("SELECT {CHANGE} WHERE node_id = ?1 AND serial > ?2 ORDER BY serial LIMIT ?3");
            let mut statement = reader.prepare_cached(&sql)?;
            let mut rows = statement.query(params![node_id.as_str(), signed(after_serial), signed(limit)])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                changes.push(record::change(row)?);
            }
            Ok(changes)
        })
    }

    fn revision(&self) -> Result<u64, StoreError> {
        self.read(revision)
    }

    fn rollouts(&self) -> &dyn RolloutStore {
        self
    }

    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError> {
        self.read(|reader| {
            // What is committed later is beyond it, and is the next call's.
            let latest = revision(reader)?;
            let chosen = match node_id {
                Some(_) => "node_id = ?4 AND change_id > ?1 AND change_id <= ?2 ORDER BY serial",
                None => "change_id > ?1 AND change_id <= ?2 ORDER BY change_id",
            };
            let mut statement = reader.prepare_cached(&format!("SELECT {CHANGE} WHERE {chosen} LIMIT ?3"))?;
            let (after, head, up_to) = (signed(after), signed(latest), signed(limit));
            let mut rows = match node_id {
                Some(node_id) => statement.query(params![after, head, up_to, node_id.as_str()])?,
                None => statement.query(params![after, head, up_to])?,
            };
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                changes.push(record::revised(row)?);
            }
            Ok(record::page(changes, latest, limit))
        })
    }
}

impl Ledger for Transaction<'_> {
    type Fault = Fault;

    async fn rows(&mut self, nodes: &[NodeId]) -> Result<Vec<Row>, Fault> {
        nodes.iter().filter_map(|node_id| select(self, node_id).transpose()).collect()
    }

    async fn close_match(&mut self, node_id: &NodeId) -> Result<Option<NodeId>, Fault> {
        database::close_match(self, node_id)
    }

    async fn write(&mut self, changes: &[Change]) -> Result<(), Fault> {
        changes.iter().try_for_each(|change| write(self, change))
    }
}

/// What the work gives. A database in a file keeps nobody waiting, so it is ready when it is asked for.
fn without_waiting<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return outcome;
        }
    }
}

/// `AUTOINCREMENT` under the one write lock: the next number, taken in the order of the commits, and rolled back with them.
fn revision(connection: &Connection) -> Result<u64, Fault> {
    let latest = "SELECT coalesce(max(change_id), 0) FROM history";
    let latest = connection.prepare_cached(latest)?.query_row([], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(latest).unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in between rolled its transaction back: what is left is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The node's row.
pub(super) fn select(connection: &Connection, node_id: &NodeId) -> Result<Option<Row>, Fault> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ROW} WHERE node_id = ?1"))?;
    let mut rows = statement.query([node_id.as_str()])?;
    rows.next()?.map(record::row).transpose()
}

fn scan(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        if visit(record::row(row)?).is_break() {
            break;
        }
    }
    Ok(())
}

fn write(transaction: &Transaction<'_>, change: &Change) -> Result<(), Fault> {
    let Change { action, who, at_ms, before, after } = change;
    let (node_id, serial, at_ms) = (after.node_id.as_str(), signed(after.serial), signed(*at_ms));
    let [after_ref, after_status, after_rollout_state] = record::words(after);
    let [before_ref, before_status, before_rollout_state] = match before {
        Some(before) => record::words(before).map(Some),
        None => [None; 3],
    };
    let row = match before {
        Some(_) => {
            "UPDATE enrollment SET enrollment_ref = ?2, status = ?3, rollout_state = ?4, serial = ?5, updated_at_ms = ?6
             WHERE node_id = ?1"
        }
        None => {
            "INSERT INTO enrollment (node_id, enrollment_ref, status, rollout_state, serial, created_at_ms, updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)"
        }
    };
    transaction.prepare_cached(row)?.execute(params![
        node_id,
        after_ref,
        after_status,
        after_rollout_state,
        serial,
        at_ms
    ])?;
    transaction
        .prepare_cached(
            "INSERT INTO history (node_id, serial, action, who, at_ms, before_ref, before_status, before_rollout_state,
                                  after_ref, after_status, after_rollout_state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            node_id,
            serial,
            action.as_str(),
            who,
            at_ms,
            before_ref,
            before_status,
            before_rollout_state,
            after_ref,
            after_status,
            after_rollout_state
        ])?;
    Ok(())
}
