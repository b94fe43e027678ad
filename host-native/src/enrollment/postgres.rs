//! A store in a PostgreSQL database.

mod server;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    error::Error as _,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};
use tokio::time::timeout;
use tokio_postgres::{
    IsolationLevel, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use self::server::{CALL, STATE, Server, Session};
use super::{
    Change, Changes, IfActive, Mutation, Query, Row, Store, StoreError,
    ledger::{self, Ledger},
    one_line,
    record::{self, Record, signed},
    request::{By, Request},
    rollout::RolloutStore,
};
use crate::{ErrorClass, client::SetUpError};

/// Each entry takes the schema from its index to the next version. An entry that was released never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/postgres/1.sql"),
    include_str!("schema/postgres/2.sql"),
    include_str!("schema/postgres/3.sql"),
    include_str!("schema/postgres/4.sql"),
];

/// The version that [`MIGRATIONS`] lead to.
const SCHEMA_VERSION: u64 = MIGRATIONS.len() as u64;

/// `autonomy`: what migrations of one database lock, so that they come one after the other.
const MIGRATION_LOCK: i64 = i64::from_be_bytes(*b"autonomy");

/// The columns of a row, in the order of [`record::row`].
const ROW: &str =
    "node_id, enrollment_ref, status, rollout_state, serial::text, created_at_ms::text, updated_at_ms::text
                   FROM autonomy.enrollment";

/// The columns of a change, in the order of [`record::change`] and [`record::revised`].
const CHANGE: &str = "node_id, serial::text, action, who, at_ms::text, before_ref, before_status, before_rollout_state,
                      after_ref, after_status, after_rollout_state, revision::text FROM autonomy.history";

/// Locks the one row of state until the commit: whoever comes next sees this change, and has the next revision.
const LOCK: &str = "SELECT schema_version::bigint, revision FROM autonomy.state FOR UPDATE";

/// Rows that are held at once where all are shown.
const PAGE: usize = 1000;

/// A [`Store`] in a PostgreSQL database. Any number of processes on any number of machines may use the database at once.
///
/// A change is on the server's disk when the call that made it returns, and on that of each synchronous standby. Every
/// call returns within five seconds, whatever becomes of the server, but for a step of a rollout with many nodes, which is such a
/// call for each thousand of them; each new connection goes to a server that may be written to, so that nobody is answered by a standby. It waits
/// on the thread that calls, which must not be one of an async runtime.
pub struct PostgresStore {
    server: Server,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date, which is `autonomy` in the database that `url` names:
    /// `postgres://user@host/database`, with several hosts joined by commas where any may be the primary.
    ///
    /// The password is the one line of a file that its owner alone can read. TLS is spoken to everybody who is not on this
    /// machine; `ca` has the only roots to trust, where the machine's are not meant.
    ///
    /// # Errors
    /// What cannot be used; nobody answers; the schema is of a later version.
    pub fn open(url: &str, password_file: Option<&Path>, ca: Option<&Path>) -> Result<Self, StoreError> {
        let server = Server::new(url, password_file, ca)?;
        server.block_on(async {
            let (mut session, version) = server.connector().connect().await?;
            if version == SCHEMA_VERSION { Ok(()) } else { migrate(&mut session).await }
        })?;
        Ok(Self { server })
    }

    fn change(&self, node_id: &NodeId, request: &Request<'_>, who: &str, now_ms: u64) -> Result<Mutation, StoreError> {
        let by = By::new(who, now_ms)?;
        request.check()?;
        self.transact(async |ledger| ledger::change(ledger, node_id, request, by).await)
    }

    /// One transaction, which is committed when the call returns. Nobody else changes anything meanwhile.
    pub(super) fn transact<T>(
        &self,
        work: impl AsyncFnOnce(&mut PostgresLedger<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let done = self.server.change(async |Session { client, commits, .. }| {
            let transaction = within_call(client.transaction()).await?;
            let State { version, revision } = State::lock(&transaction).await?;
            // A newer version may have migrated the database since it was connected to.
            if version != SCHEMA_VERSION {
                return Err(PostgresError::Schema { version }.into());
            }
            let mut ledger = PostgresLedger { transaction, revision, is_written: false };
            let outcome = work(&mut ledger).await?;
            let PostgresLedger { transaction, revision, is_written } = ledger;
            if is_written {
                *commits = true;
                within_call(transaction.commit()).await?;
                self.server.connector().saw(revision);
            }
            Ok(outcome)
        });
        Ok(self.server.block_on(done)?)
    }

    /// Reads all of it as it stood at one instant.
    pub(super) fn read<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.ask(async |Session { client, .. }| {
            let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            work(&snapshot.read_only(true).start().await?).await
        })
    }

    pub(super) fn select<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&tokio_postgres::Row) -> Result<T, Fault>,
    ) -> Result<Vec<T>, StoreError> {
        self.ask(async |session| session.client.query_typed(sql, params).await?.iter().map(read).collect())
    }

    async fn latest(&self, session: &Session) -> Result<u64, Fault> {
        let State { revision, .. } = State::read(&session.client.query_typed(STATE, &[]).await?)?;
        self.server.connector().saw(revision);
        Ok(revision)
    }

    fn ask<T>(&self, work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>) -> Result<T, StoreError> {
        Ok(self.server.block_on(self.server.call(work))?)
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl Store for PostgresStore {
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
        let sql = format!("SELECT {ROW} WHERE node_id = ANY ($1)");
        self.select(&sql, &[(&ids(nodes), Type::TEXT_ARRAY)], record::row)
    }

    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let sql = format!(
            "SELECT {ROW} WHERE ($1 IS NULL OR status = $1) AND node_id > $2 ORDER BY enrollment.node_id LIMIT $3"
        );
        let status = query.status.as_ref().map(Status::as_str);
        let (after, limit) = (query.after.as_ref().map_or("", NodeId::as_str), signed(query.limit));
        self.select(&sql, &[(&status, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)], record::row)
    }

    fn count(&self, status: Option<&Status>) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM autonomy.enrollment WHERE $1 IS NULL OR status = $1";
        let counts =
            self.select(sql, &[(&status.map(Status::as_str), Type::TEXT)], |row| Ok(row.try_get::<_, i64>(0)?))?;
        Ok(counts.first().and_then(|&count| count.try_into().ok()).unwrap_or_default())
    }

    fn for_each(&self, visit: &mut dyn FnMut(Enrollment) -> ControlFlow<()>) -> Result<(), StoreError> {
        let sql = format!("SELECT {ROW} WHERE node_id > $1 ORDER BY enrollment.node_id LIMIT $2");
        let read = self.server.once(async |session| {
            let snapshot = session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            let snapshot = within_call(snapshot.read_only(true).start()).await?;
            let mut after = String::new();
            loop {
                let params: [Param<'_>; 2] = [(&after, Type::TEXT), (&signed(PAGE), Type::INT8)];
                let page = within_call(snapshot.query_typed(&sql, &params)).await?;
                for row in &page {
                    let Row { enrollment, .. } = record::row(row)?;
                    enrollment.node_id.as_str().clone_into(&mut after);
                    if visit(enrollment).is_break() {
                        return Ok(());
                    }
                }
                if page.len() < PAGE {
                    return Ok(());
                }
            }
        });
        Ok(self.server.block_on(read)?)
    }

    fn history(&self, node_id: &NodeId, after_serial: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        let sql = format!("SELECT {CHANGE} WHERE node_id = $1 AND serial > $2 ORDER BY history.serial LIMIT $3");
        let (node_id, after, limit) = (node_id.as_str(), signed(after_serial), signed(limit));
        self.select(&sql, &[(&node_id, Type::TEXT), (&after, Type::INT8), (&limit, Type::INT8)], record::change)
    }

    fn revision(&self) -> Result<u64, StoreError> {
        self.ask(async |session| self.latest(session).await)
    }

    fn rollouts(&self) -> &dyn RolloutStore {
        self
    }

    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError> {
        let sql = format!(
            "SELECT {CHANGE} WHERE ($1 IS NULL OR node_id = $1) AND revision > $2 AND revision <= $3
             ORDER BY history.revision LIMIT $4"
        );
        let (node_id, after, up_to) = (node_id.map(NodeId::as_str), signed(after), signed(limit));
        self.ask(async |session| {
            // What is committed later is beyond it, and is the next call's.
            let latest = self.latest(session).await?;
            let params: [Param<'_>; 4] =
                [(&node_id, Type::TEXT), (&after, Type::INT8), (&signed(latest), Type::INT8), (&up_to, Type::INT8)];
            let changes = session.client.query_typed(&sql, &params).await?;
            let changes: Result<_, Fault> = changes.iter().map(record::revised).collect();
            Ok(record::page(changes?, latest, limit))
        })
    }
}

/// Waits for one answer where many are waited for.
pub(super) async fn within_call<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
    Ok(in_time(answer).await??)
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, PostgresError> {
    timeout(CALL, answer).await.map_err(|_| PostgresError::Late { within: CALL })
}

/// A transaction that holds the one row of state.
pub(super) struct PostgresLedger<'a> {
    pub(super) transaction: Transaction<'a>,
    /// Of the latest change, those of this transaction among them.
    revision: u64,
    is_written: bool,
}

impl PostgresLedger<'_> {
    pub(super) async fn query<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&tokio_postgres::Row) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        within_call(self.transaction.query_typed(sql, params)).await?.iter().map(read).collect()
    }

    pub(super) async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<(), Fault> {
        self.is_written = true;
        within_call(self.transaction.execute_typed(sql, params)).await?;
        Ok(())
    }
}

impl Ledger for PostgresLedger<'_> {
    type Fault = Fault;

    async fn rows(&mut self, nodes: &[NodeId]) -> Result<Vec<Row>, Fault> {
        let sql = format!("SELECT {ROW} WHERE node_id = ANY ($1) ORDER BY enrollment.node_id");
        self.query(&sql, &[(&ids(nodes), Type::TEXT_ARRAY)], record::row).await
    }

    async fn close_match(&mut self, node_id: &NodeId) -> Result<Option<NodeId>, Fault> {
        let sql = "SELECT node_id FROM autonomy.enrollment WHERE lower(node_id) = lower($1)";
        let text = |row: &tokio_postgres::Row| Ok(row.text(0)?.into_owned());
        let close = self.query(sql, &[(&node_id.as_str(), Type::TEXT)], text).await?;
        Ok(close.first().and_then(|id| NodeId::parse(id).ok()))
    }

    async fn write(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let sql = "WITH change AS (
                       SELECT *, $1 + number AS revision
                       FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
                                   $9::text[], $10::text[], $11::text[], $12::text[]) WITH ORDINALITY AS change
                            (node_id, serial, after_ref, after_status, after_rollout_state, at_ms, action, who,
                             before_ref, before_status, before_rollout_state, number)),
                   state AS (UPDATE autonomy.state SET revision = $1 + cardinality($2)),
                   enrollment AS (
                       INSERT INTO autonomy.enrollment
                           (node_id, serial, enrollment_ref, status, rollout_state, created_at_ms, updated_at_ms)
                       SELECT node_id, serial, after_ref, after_status, after_rollout_state, at_ms, at_ms FROM change
                       ON CONFLICT (node_id) DO UPDATE
                       SET serial = excluded.serial, enrollment_ref = excluded.enrollment_ref, status = excluded.status,
                           rollout_state = excluded.rollout_state, updated_at_ms = excluded.updated_at_ms)
                   INSERT INTO autonomy.history
                       (revision, node_id, serial, after_ref, after_status, after_rollout_state, at_ms, action, who,
                        before_ref, before_status, before_rollout_state)
                   SELECT revision, node_id, serial, after_ref, after_status, after_rollout_state, at_ms, action, who,
                          before_ref, before_status, before_rollout_state FROM change";
        let after = |index: usize| column(changes, |change| record::words(&change.after).get(index).copied());
        let before =
            |index: usize| column(changes, |change| record::words(change.before.as_ref()?).get(index).copied());
        let params: [Param<'_>; 12] = [
            (&signed(self.revision), Type::INT8),
            (&column(changes, |change| change.after.node_id.as_str()), Type::TEXT_ARRAY),
            (&column(changes, |change| signed(change.after.serial)), Type::INT8_ARRAY),
            (&after(0), Type::TEXT_ARRAY),
            (&after(1), Type::TEXT_ARRAY),
            (&after(2), Type::TEXT_ARRAY),
            (&column(changes, |change| signed(change.at_ms)), Type::INT8_ARRAY),
            (&column(changes, |change| change.action.as_str()), Type::TEXT_ARRAY),
            (&column(changes, |change| change.who.as_str()), Type::TEXT_ARRAY),
            (&before(0), Type::TEXT_ARRAY),
            (&before(1), Type::TEXT_ARRAY),
            (&before(2), Type::TEXT_ARRAY),
        ];
        self.execute(sql, &params).await?;
        let written = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        self.revision = self.revision.saturating_add(written);
        Ok(())
    }
}

/// Node ids as a value of a statement.
pub(super) fn ids(nodes: &[NodeId]) -> Vec<&str> {
    nodes.iter().map(NodeId::as_str).collect()
}

/// One value of each change.
fn column<'a, T>(changes: &'a [Change], value: impl Fn(&'a Change) -> T) -> Vec<T> {
    changes.iter().map(value).collect()
}

/// Brings the schema up to date, unless another program just did.
async fn migrate(session: &mut Session) -> Result<(), Fault> {
    let transaction = session.client.transaction().await?;
    // A table may be large. Whoever migrates at the same time is waited for, as long as for any lock.
    let lock = format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    transaction.batch_execute(&lock).await?;
    let is_there = "SELECT FROM pg_tables WHERE schemaname = 'autonomy' AND tablename = 'state'";
    let is_there = transaction.query_typed(is_there, &[]).await?;
    let version = match is_there.as_slice() {
        [] => 0,
        _ => State::lock(&transaction).await?.version,
    };
    if version > SCHEMA_VERSION {
        return Err(PostgresError::Schema { version }.into());
    }
    for migration in MIGRATIONS.iter().skip(version.try_into().unwrap_or(usize::MAX)) {
        transaction.batch_execute(migration).await?;
    }
    transaction.batch_execute(&format!("UPDATE autonomy.state SET schema_version = {SCHEMA_VERSION}")).await?;
    Ok(transaction.commit().await?)
}

/// What a database is at.
struct State {
    version: u64,
    revision: u64,
}

impl State {
    /// Reads it, and holds it until the transaction ends.
    async fn lock(transaction: &Transaction<'_>) -> Result<Self, Fault> {
        let rows = in_time(transaction.query_typed(LOCK, &[])).await?.map_err(|error| match error.code() {
            // Who waits behind others begins to wait anew with each of them, until the statement's own time is up.
            Some(&SqlState::QUERY_CANCELED) => PostgresError::Locked.into(),
            _ => Fault::from(error),
        })?;
        Ok(Self::read(&rows)?)
    }

    fn read(rows: &[tokio_postgres::Row]) -> Result<Self, PostgresError> {
        let number = |index| u64::try_from(rows.first()?.try_get::<_, i64>(index).ok()?).ok();
        let state = || Some(Self { version: number(0)?, revision: number(1)? });
        state().ok_or(PostgresError::NoState)
    }
}

impl Record for tokio_postgres::Row {
    type Fault = Fault;

    fn optional(&self, index: usize) -> Result<Option<Cow<'_, str>>, Fault> {
        Ok(self.try_get::<_, Option<&str>>(index)?.map(Cow::from))
    }
}

/// A value of a statement, and its type: the server is not asked for it first.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// What goes wrong in a call.
pub(super) enum Fault {
    /// Said by a rule about what was found. The connection is as sound as before.
    Rule(StoreError),
    Postgres(PostgresError),
}

impl Fault {
    /// The same, where it is not known whether a change was made.
    fn after_commit(self) -> Self {
        match self {
            Self::Rule(_) => self,
            Self::Postgres(error) => Self::Postgres(PostgresError::Unknown { why: error.to_string() }),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Rule(error)
    }
}

impl From<PostgresError> for Fault {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = why(&error);
        Self::Postgres(match error.as_db_error() {
            Some(error) if *error.code() == SqlState::LOCK_NOT_AVAILABLE => PostgresError::Locked,
            Some(_) => PostgresError::Refused { why },
            None => PostgresError::Lost { why },
        })
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Rule(error) => error,
            Fault::Postgres(error) => error.into(),
        }
    }
}

/// What went wrong, in one line.
fn why(error: &tokio_postgres::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source()).map(|cause| format!(": {cause}"));
    match error.as_db_error() {
        Some(error) => one_line(error.message()),
        None => one_line(&std::iter::once(error.to_string()).chain(causes).collect::<String>()),
    }
}

/// Why a PostgreSQL database did not do what was asked. No password is in any message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// Not a URL of a database.
    #[error("database url: {why}; use `postgres://<user>@<host>/<database>`")]
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// The URL would show the password wherever it is shown.
    #[error(
        "database url holds a password: put that into a file that its owner alone can read, and name it with `--database-password-file`"
    )]
    PasswordInUrl,
    /// The file of the password cannot be used.
    #[error("cannot use database password `{}` ({source}): put the password alone into a file with mode 600", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Everybody between could read and change what is asked and answered.
    #[error(
        "database `{address}` is not on this machine and `sslmode=disable` leaves tls out: take that out of the url"
    )]
    Cleartext {
        /// The first that is not.
        address: String,
    },
    /// TLS cannot be set up.
    #[error("database: {0}")]
    Tls(#[from] SetUpError),
    /// The system has no threads or files to spare.
    #[error("cannot ask the database ({0}): free some memory, processes or files")]
    Resources(io::Error),
    /// No address leads to a server that may be written to.
    #[error(
        "cannot reach the database ({why}): check that its primary runs, `orchestrator.database` and `orchestrator.database_password_file`"
    )]
    Unreachable {
        /// Each address, and what happened there.
        why: String,
    },
    /// Time is up.
    #[error("the database gave no answer within {within:?}: look what it is busy with, and ask again")]
    Late {
        /// How long was waited.
        within: Duration,
    },
    /// The connection ended.
    #[error("the database was lost ({why}): ask again")]
    Lost {
        /// What the connection says.
        why: String,
    },
    /// Somebody else's transaction did not end in time. Those of an orchestrator are short.
    #[error(
        "somebody else holds what is to be changed in the database, for more than three seconds: ask again, or find who it is in \
         `pg_stat_activity`, such as a backup or a shell, and end that"
    )]
    Locked,
    /// The server did not do it.
    #[error("the database refused ({why}): look at its log, and ask again")]
    Refused {
        /// What the server says.
        why: String,
    },
    /// The connection ended, or time was up, while a change was committed.
    #[error("the change may have been made or not ({why}); look at the node or the rollout")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// Written by another version.
    #[error("the database has schema version {version}, and this version uses {SCHEMA_VERSION}: {}", other_version(*.version))]
    Schema {
        /// The version in the database.
        version: u64,
    },
    /// The schema is there, and what each change locks is not.
    #[error("the database has no row in `autonomy.state`: restore it from a backup")]
    NoState,
}

impl PostgresError {
    /// Whose turn it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Url { .. } | Self::PasswordInUrl | Self::Cleartext { .. } => ErrorClass::Usage,
            Self::PasswordFile { source, .. } => ErrorClass::of(source),
            Self::Tls(error) => error.class(),
            Self::Resources(_)
            | Self::Unreachable { .. }
            | Self::Late { .. }
            | Self::Lost { .. }
            | Self::Locked
            | Self::Refused { .. }
            | Self::Unknown { .. }
            | Self::Schema { .. }
            | Self::NoState => ErrorClass::Unavailable,
        }
    }
}

fn other_version(version: u64) -> &'static str {
    if version > SCHEMA_VERSION {
        "use a newer `autonomy`"
    } else {
        "restart the orchestrator, which brings it up to date"
    }
}
