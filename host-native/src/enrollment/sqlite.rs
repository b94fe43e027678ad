use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    Action, Change, Changes, IfActive, Mutation, Query, Revised, Row, Store, StoreError,
    database::{self, Fault, Look, OnDisk, ROW, Watch},
    request::{Found, Request},
    rollout::{
        RolloutStore,
        sqlite::{By, withdraw},
    },
};

/// How long a call waits for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections kept open for reading between calls.
const IDLE_READERS: usize = 4;

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
        Self::open_existing(path)
    }

    /// Opens the file, which must be there: a mistyped path is an error, not an empty fleet.
    ///
    /// # Errors
    /// There is no such file, or as for [`Self::open`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
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
        request.check(who)?;
        self.transact(|transaction| apply(transaction, node_id, request, By { who, now_ms }))
    }

    /// One transaction, which is on disk when the call returns.
    pub(super) fn transact<T>(
        &self,
        attempt: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        match self.access {
            Access::ReadWrite => self.check_files()?,
            Access::ReadOnly => return Err(StoreError::ReadOnly { path: self.path.clone() }),
        }
        let mut writer = lock(&self.keeper);
        let before = writer.total_changes();
        let attempt = || -> Result<T, Fault> {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // A newer version may have migrated the file since it was opened.
            database::check_schema(&transaction, &self.path)?;
            let outcome = attempt(&transaction)?;
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

    fn get(&self, node_id: &NodeId) -> Result<Option<Row>, StoreError> {
        self.read(|reader| select(reader, node_id))
    }

    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let after = query.after.as_ref().map_or("", NodeId::as_str);
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
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
        let after_serial = i64::try_from(after_serial).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|reader| {
            let mut statement = reader.prepare_cached(
                "SELECT serial, action, who, at_ms, before_ref, before_status, before_rollout_state,
                        after_ref, after_status, after_rollout_state
                 FROM history WHERE node_id = ?1 AND serial > ?2 ORDER BY serial LIMIT ?3",
            )?;
            let mut rows = statement.query(params![node_id.as_str(), after_serial, limit])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                changes.push(change(row, node_id)?);
            }
            Ok(changes)
        })
    }

    fn revision(&self) -> Result<u64, StoreError> {
        self.read(revision)
    }

    fn rollouts(&self) -> Option<&dyn RolloutStore> {
        Some(self)
    }

    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let up_to = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|reader| {
            // What is committed later is beyond it, and is the next call's.
            let latest = revision(reader)?;
            let head = i64::try_from(latest).unwrap_or(i64::MAX);
            let mut changes = Vec::new();
            let mut statement = reader.prepare_cached(match node_id {
                Some(_) => {
                    "SELECT serial, action, who, at_ms, before_ref, before_status, before_rollout_state,
                            after_ref, after_status, after_rollout_state, change_id, node_id
                     FROM history WHERE node_id = ?4 AND change_id > ?1 AND change_id <= ?2 ORDER BY serial LIMIT ?3"
                }
                None => {
                    "SELECT serial, action, who, at_ms, before_ref, before_status, before_rollout_state,
                            after_ref, after_status, after_rollout_state, change_id, node_id
                     FROM history WHERE change_id > ?1 AND change_id <= ?2 ORDER BY change_id LIMIT ?3"
                }
            })?;
            let mut rows = match node_id {
                Some(node_id) => statement.query(params![after, head, up_to, node_id.as_str()])?,
                None => statement.query(params![after, head, up_to])?,
            };
            while let Some(row) = rows.next()? {
                let on_disk = OnDisk { row, node_id: database::text(row, 11)? };
                let (revision, of) = (on_disk.count("change_id", 10)?, on_disk.parse("node_id", 11, NodeId::parse)?);
                changes.push(Revised { revision, change: change(row, &of)? });
            }
            let last = changes.last().map(|revised| revised.revision);
            let cursor = if changes.len() < limit { latest } else { last.unwrap_or(latest) };
            Ok(Changes { changes, cursor })
        })
    }
}

/// What is found, what follows from it, the row and its entry in the history.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    node_id: &NodeId,
    request: &Request<'_>,
    by: By<'_>,
) -> Result<Mutation, Fault> {
    let By { who, now_ms } = by;
    let before = select(transaction, node_id)?;
    let found = match &before {
        Some(row) => Found::Row(row.enrollment.clone()),
        None => Found::Nothing { close: database::close_match(transaction, node_id)? },
    };
    let Some((action, after)) = request.next(node_id, &found)? else {
        return Ok(match before {
            Some(row) => Mutation { row, change: None },
            None => return Err(StoreError::NotEnrolled { node_id: node_id.clone(), close: None }.into()),
        });
    };
    let created_at_ms = before.as_ref().map_or(now_ms, |row| row.created_at_ms);
    let row = Row { enrollment: after.clone(), created_at_ms, updated_at_ms: now_ms };
    let before = before.map(|row| row.enrollment);
    let change = Change { action, who: who.to_owned(), at_ms: now_ms, before, after };
    write(transaction, &change, time(now_ms)?)?;
    match action {
        Action::Reenroll | Action::Replace | Action::Revoke => withdraw(transaction, node_id, by)?,
        Action::Enroll | Action::SetRollout => {}
    }
    Ok(Mutation { row, change: Some(change) })
}

/// A time as SQL keeps it.
pub(super) fn time(now_ms: u64) -> Result<i64, StoreError> {
    i64::try_from(now_ms).map_err(|_| StoreError::Time { now_ms })
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
    rows.next()?.map(database::row).transpose()
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
        if visit(database::row(row)?).is_break() {
            break;
        }
    }
    Ok(())
}

fn write(transaction: &Transaction<'_>, change: &Change, at_ms: i64) -> Result<(), Fault> {
    let Change { action, who, before, after, .. } = change;
    let node_id = after.node_id.as_str();
    let serial = i64::try_from(after.serial).unwrap_or(i64::MAX);
    let state = |enrollment: &Enrollment| {
        [enrollment.enrollment_ref.as_str(), enrollment.status.as_str(), enrollment.rollout_state.as_str()]
            .map(str::to_owned)
    };
    let [after_ref, after_status, after_rollout_state] = state(after);
    let [before_ref, before_status, before_rollout_state] = match before.as_ref().map(state) {
        Some(words) => words.map(Some),
        None => [None, None, None],
    };
    transaction
        .prepare_cached(
            "INSERT INTO enrollment (node_id, enrollment_ref, status, rollout_state, serial, created_at_ms, updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
             ON CONFLICT (node_id) DO UPDATE SET enrollment_ref = ?2, status = ?3, rollout_state = ?4, serial = ?5,
                                                 updated_at_ms = ?6",
        )?
        .execute(params![node_id, after_ref, after_status, after_rollout_state, serial, at_ms])?;
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

/// Reads one entry of the history.
fn change(row: &rusqlite::Row<'_>, node_id: &NodeId) -> Result<Change, Fault> {
    let on_disk = OnDisk { row, node_id: node_id.as_str().into() };
    let serial = on_disk.count("serial", 0)?;
    let action = on_disk.parse("action", 1, |word| Action::from_word(word).ok_or("no such action"))?;
    let enrollment = |column, first: usize, serial| -> Result<Enrollment, Fault> {
        Ok(Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: on_disk.parse(column, first, EnrollmentRef::parse)?,
            status: Status::from_word(&database::text(row, first.saturating_add(1))?),
            rollout_state: RolloutState::from_word(&database::text(row, first.saturating_add(2))?),
            serial,
        })
    };
    let before = match action {
        Action::Enroll => None,
        Action::Reenroll | Action::Replace | Action::Revoke | Action::SetRollout => {
            Some(enrollment("before_ref", 4, serial.saturating_sub(1))?)
        }
    };
    Ok(Change {
        action,
        who: database::text(row, 2)?.into_owned(),
        at_ms: on_disk.count("at_ms", 3)?,
        before,
        after: enrollment("after_ref", 7, serial)?,
    })
}
