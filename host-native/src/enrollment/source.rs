use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use gate_core::{enrollment::Answer, identity::NodeId};
use rusqlite::Connection;

use super::{
    StoreError,
    database::{self, Fault, Look, Watch},
    sqlite::select,
};

/// How long a decision waits for a locked file before it is `unavailable`.
const PATIENCE: Duration = Duration::from_millis(20);

/// Answers for one node whether it is enrolled. Whoever decides asks before every decision.
pub trait Source: Send {
    /// What there is to tell since the last call. The first call always tells an answer.
    ///
    /// Never fails: a source that cannot answer tells [`Answer::Unavailable`], and the gate denies.
    fn observe(&mut self, now_ms: u64) -> Observation;
}

/// What a source has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The last answer stands.
    Unchanged,
    /// A new answer: another one, or the same one seen again later.
    Changed(Answer),
}

/// Asks the file that a [`SqliteStore`](super::SqliteStore) writes.
///
/// Each call looks whether anybody has committed to the file, in microseconds, and reads the row only then: a change
/// made by any process is seen by the next call. A file that was deleted, replaced, locked or damaged is
/// [`Answer::Unavailable`] and is opened anew once it is back.
#[derive(Debug)]
pub struct LocalSource {
    path: PathBuf,
    node_id: NodeId,
    refresh_ms: u64,
    opened: Option<Opened>,
    last: Option<Answer>,
    /// The highest serial that was read. Rows are never deleted and serials only grow: a lower one is another history.
    highest_serial: u64,
}

#[derive(Debug)]
struct Opened {
    connection: Connection,
    watch: Watch,
    /// SQLite's count of the commits of others, as of the last read of the row.
    data_version: i64,
}

impl LocalSource {
    /// Asks for `node_id` in the database at `path`, which need not be there yet. Every `refresh_ms` the answer is
    /// read and told again even if nothing changed: choose less than the staleness that the gate allows.
    ///
    /// # Errors
    /// The path is relative and there is no current directory.
    pub fn new(path: impl AsRef<Path>, node_id: NodeId, refresh_ms: u64) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        Ok(Self { path, node_id, refresh_ms, opened: None, last: None, highest_serial: 0 })
    }

    /// A new answer, or nothing when the last one stands.
    fn look(&mut self, now_ms: u64) -> Result<Option<Answer>, StoreError> {
        // A file that was written to is read with an empty cache: what is in memory says nothing of the disk.
        if self.opened.as_mut().is_some_and(|opened| opened.watch.look_again() != Look::Same) {
            self.opened = None;
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened::new(&self.path)?,
        };
        let opened = self.opened.insert(opened);
        let mut read = || -> Result<Option<Answer>, Fault> {
            // Taken before the row is read: a commit in between is seen by the next call.
            let data_version = opened.data_version()?;
            let fresh = self.last.as_ref().and_then(observed_at).is_some_and(|observed_at_ms| {
                now_ms.checked_sub(observed_at_ms).is_some_and(|age_ms| age_ms < self.refresh_ms)
            });
            if fresh && opened.data_version == data_version {
                return Ok(None);
            }
            database::check_schema(&opened.connection, &self.path)?;
            let row = select(&opened.connection, &self.node_id)?;
            let serial = row.as_ref().map_or(0, |row| row.enrollment.serial);
            if serial < self.highest_serial {
                return Err(StoreError::WentBack {
                    path: self.path.clone(),
                    node_id: self.node_id.clone(),
                    seen: self.highest_serial,
                    found: serial,
                }
                .into());
            }
            self.highest_serial = serial;
            let answer = match row {
                Some(row) => Answer::Enrolled { enrollment: row.enrollment, observed_at_ms: now_ms },
                None => Answer::NotEnrolled { observed_at_ms: now_ms },
            };
            opened.data_version = data_version;
            let same = fresh && self.last.as_ref().is_some_and(|last| says_the_same(last, &answer));
            Ok((!same).then_some(answer))
        };
        read().map_err(|fault| fault.at(&self.path))
    }
}

impl Source for LocalSource {
    fn observe(&mut self, now_ms: u64) -> Observation {
        let answer = match self.look(now_ms) {
            Ok(None) => return Observation::Unchanged,
            Ok(Some(answer)) => answer,
            Err(error) => {
                self.opened = None;
                Answer::Unavailable { why: error.to_string() }
            }
        };
        if self.last.as_ref() == Some(&answer) && observed_at(&answer).is_none() {
            return Observation::Unchanged;
        }
        self.last = Some(answer.clone());
        Observation::Changed(answer)
    }
}

impl Opened {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let (connection, watch) = database::open_reader(path, PATIENCE)?;
        Ok(Self { connection, watch, data_version: i64::MIN })
    }

    fn data_version(&self) -> Result<i64, Fault> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }
}

fn observed_at(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Unavailable { .. } => None,
        Answer::NotEnrolled { observed_at_ms } | Answer::Enrolled { observed_at_ms, .. } => Some(*observed_at_ms),
    }
}

/// Whether two answers differ at most in when they were given.
fn says_the_same(one: &Answer, other: &Answer) -> bool {
    match (one, other) {
        (Answer::NotEnrolled { .. }, Answer::NotEnrolled { .. }) => true,
        (Answer::Enrolled { enrollment: one, .. }, Answer::Enrolled { enrollment: other, .. }) => one == other,
        (Answer::Unavailable { why: one }, Answer::Unavailable { why: other }) => one == other,
        (Answer::Unavailable { .. } | Answer::NotEnrolled { .. } | Answer::Enrolled { .. }, _) => false,
    }
}
