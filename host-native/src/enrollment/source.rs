use std::{
    collections::BTreeMap,
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
    lookup: Lookup,
    node_id: NodeId,
    refresh_ms: u64,
    last: Option<Answer>,
    /// SQLite's count of the commits of others, as of the last read of the row.
    data_version: i64,
}

/// Answers for any node from the file that a [`SqliteStore`](super::SqliteStore) writes: what each is now.
#[derive(Debug)]
pub struct Lookup {
    path: PathBuf,
    opened: Option<(Connection, Watch)>,
    /// The highest serial that was read of each node. Rows are never deleted and serials only grow: a lower one is another
    /// history.
    highest_serials: BTreeMap<NodeId, u64>,
}

impl LocalSource {
    /// Asks for `node_id` in the database at `path`, which need not be there yet. Every `refresh_ms` the answer is
    /// read and told again even if nothing changed: choose less than the staleness that the gate allows.
    ///
    /// # Errors
    /// The path is relative and there is no current directory.
    pub fn new(path: impl AsRef<Path>, node_id: NodeId, refresh_ms: u64) -> Result<Self, StoreError> {
        Ok(Self { lookup: Lookup::new(path)?, node_id, refresh_ms, last: None, data_version: i64::MIN })
    }

    /// A new answer, or nothing when the last one stands.
    fn look(&mut self, now_ms: u64) -> Result<Option<Answer>, StoreError> {
        let Self { lookup, node_id, refresh_ms, last, data_version } = self;
        if lookup.open()? {
            *data_version = i64::MIN;
        }
        // Taken before the row is read: a commit in between is seen by the next call.
        let found = lookup.data_version()?;
        let fresh = last.as_ref().and_then(observed_at).is_some_and(|observed_at_ms| {
            now_ms.checked_sub(observed_at_ms).is_some_and(|age_ms| age_ms < *refresh_ms)
        });
        if fresh && *data_version == found {
            return Ok(None);
        }
        let answer = lookup.read(node_id, now_ms)?;
        *data_version = found;
        let same = fresh && last.as_ref().is_some_and(|last| says_the_same(last, &answer));
        Ok((!same).then_some(answer))
    }
}

impl Source for LocalSource {
    fn observe(&mut self, now_ms: u64) -> Observation {
        let answer = match self.look(now_ms) {
            Ok(None) => return Observation::Unchanged,
            Ok(Some(answer)) => answer,
            Err(error) => self.lookup.failed(&error),
        };
        if self.last.as_ref() == Some(&answer) && observed_at(&answer).is_none() {
            return Observation::Unchanged;
        }
        self.last = Some(answer.clone());
        Observation::Changed(answer)
    }
}

impl Lookup {
    /// Asks the database at `path`, which need not be there yet.
    ///
    /// # Errors
    /// The path is relative and there is no current directory.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        Ok(Self { path, opened: None, highest_serials: BTreeMap::new() })
    }

    /// What is known of a node now. Never fails: a file that cannot be asked is [`Answer::Unavailable`].
    pub fn answer(&mut self, node_id: &NodeId, now_ms: u64) -> Answer {
        self.open().and_then(|_| self.read(node_id, now_ms)).unwrap_or_else(|error| self.failed(&error))
    }

    fn failed(&mut self, error: &StoreError) -> Answer {
        self.opened = None;
        Answer::Unavailable { why: error.to_string() }
    }

    /// Whether it had to be opened.
    fn open(&mut self) -> Result<bool, StoreError> {
        // A file that was written to is read with an empty cache: what is in memory says nothing of the disk.
        if self.opened.as_mut().is_some_and(|(_, watch)| watch.look_again() == Look::Same) {
            return Ok(false);
        }
        self.opened = None;
        self.opened = Some(database::open_reader(&self.path, PATIENCE)?);
        Ok(true)
    }

    /// Asks the open file.
    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let Some((connection, _)) = &self.opened else {
            return Err(StoreError::Missing { path: self.path.clone() });
        };
        question(connection).map_err(|fault| fault.at(&self.path))
    }

    fn data_version(&self) -> Result<i64, StoreError> {
        self.ask(|connection| {
            let mut statement = connection.prepare_cached("PRAGMA data_version")?;
            Ok(statement.query_row([], |row| row.get(0))?)
        })
    }

    fn read(&mut self, node_id: &NodeId, now_ms: u64) -> Result<Answer, StoreError> {
        let row = self.ask(|connection| {
            database::check_schema(connection, &self.path)?;
            select(connection, node_id)
        })?;
        let seen = self.highest_serials.get(node_id).copied().unwrap_or(0);
        let found = row.as_ref().map_or(0, |row| row.enrollment.serial);
        if found < seen {
            return Err(StoreError::WentBack { path: self.path.clone(), node_id: node_id.clone(), seen, found });
        }
        Ok(match row {
            Some(row) => {
                if found > seen {
                    self.highest_serials.insert(node_id.clone(), found);
                }
                Answer::Enrolled { enrollment: row.enrollment, observed_at_ms: now_ms }
            }
            None => Answer::NotEnrolled { observed_at_ms: now_ms },
        })
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
