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
    /// New leases, the oldest first: the envelopes' own bytes, which the gate checks one after the other.
    Leases(Vec<Vec<u8>>),
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
    last: Option<Answer>,
}

impl LocalSource {
    /// Asks for `node_id` in the database at `path`, which need not be there yet. Every `refresh_ms` the answer is
    /// read and told again even if nothing changed: choose less than the staleness that the gate allows.
    ///
    /// # Errors
    /// The path is relative and there is no current directory.
    pub fn new(path: impl AsRef<Path>, node_id: NodeId, refresh_ms: u64) -> Result<Self, StoreError> {
        Ok(Self { lookup: Lookup::new(path, refresh_ms)?, node_id, last: None })
    }
}

impl Source for LocalSource {
    fn observe(&mut self, now_ms: u64) -> Observation {
        let answer = self.lookup.answer(&self.node_id, now_ms);
        if self.last.as_ref() == Some(&answer) {
            return Observation::Unchanged;
        }
        self.last = Some(answer.clone());
        Observation::Changed(answer)
    }
}

/// What a [`LocalSource`] asks, for any node.
///
/// An answer that still stands is given again as it was observed, so that who decides on it has the same facts.
#[derive(Debug)]
pub struct Lookup {
    path: PathBuf,
    refresh_ms: u64,
    opened: Option<(Connection, Watch)>,
    seen: BTreeMap<NodeId, Seen>,
}

/// Nodes that are kept although they are not enrolled.
const STRANGERS: usize = 1024;

/// What was read of a node.
#[derive(Debug, Default)]
struct Seen {
    answer: Option<Answer>,
    /// SQLite's count of the commits of others, as of that read; none when the file was opened anew since.
    data_version: Option<i64>,
    /// The highest serial that was read. Rows are never deleted and serials only grow: a lower one is another history.
    highest_serial: u64,
}

impl Lookup {
    /// Asks the database at `path`, which need not be there yet. An answer is given for at most `refresh_ms`, then it is
    /// read again even if nothing changed.
    ///
    /// # Errors
    /// The path is relative and there is no current directory.
    pub fn new(path: impl AsRef<Path>, refresh_ms: u64) -> Result<Self, StoreError> {
        let path = database::absolute(path.as_ref())?;
        Ok(Self { path, refresh_ms, opened: None, seen: BTreeMap::new() })
    }

    /// What is known of a node now. Never fails: a file that cannot be asked is [`Answer::Unavailable`].
    pub fn answer(&mut self, node_id: &NodeId, now_ms: u64) -> Answer {
        self.look(node_id, now_ms).unwrap_or_else(|error| {
            self.opened = None;
            // Serials are remembered: another file may have another history.
            self.seen.values_mut().for_each(|seen| seen.answer = None);
            Answer::Unavailable { why: error.to_string() }
        })
    }

    fn look(&mut self, node_id: &NodeId, now_ms: u64) -> Result<Answer, StoreError> {
        // A file that was written to is read with an empty cache: what is in memory says nothing of the disk.
        if self.opened.as_mut().is_some_and(|(_, watch)| watch.look_again() != Look::Same) {
            self.opened = None;
            self.seen.values_mut().for_each(|seen| seen.data_version = None);
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => database::open_reader(&self.path, PATIENCE)?,
        };
        let (connection, _) = self.opened.insert(opened);
        // Taken before the row is read: a commit in between is seen by the next call.
        let data_version = data_version(connection).map_err(|fault| fault.at(&self.path))?;
        let seen = self.seen.get(node_id);
        let stands = seen.and_then(|seen| seen.answer.as_ref()).filter(|answer| {
            let age_ms = observed_at(answer).and_then(|observed_at_ms| now_ms.checked_sub(observed_at_ms));
            age_ms.is_some_and(|age_ms| age_ms < self.refresh_ms)
        });
        if let (Some(answer), Some(seen)) = (stands, seen)
            && seen.data_version == Some(data_version)
        {
            return Ok(answer.clone());
        }
        let read = database::check_schema(connection, &self.path).and_then(|()| select(connection, node_id));
        let row = read.map_err(|fault| fault.at(&self.path))?;
        let highest = seen.map_or(0, |seen| seen.highest_serial);
        let serial = row.as_ref().map_or(0, |row| row.enrollment.serial);
        if serial < highest {
            let (path, node_id) = (self.path.clone(), node_id.clone());
            return Err(StoreError::WentBack { path, node_id, seen: highest, found: serial });
        }
        let found = match row {
            Some(row) => Answer::Enrolled { enrollment: row.enrollment, observed_at_ms: now_ms },
            None => Answer::NotEnrolled { observed_at_ms: now_ms },
        };
        let answer = stands.filter(|stands| says_the_same(stands, &found)).unwrap_or(&found).clone();
        if self.seen.len() >= STRANGERS {
            self.seen.retain(|_, seen| seen.highest_serial > 0);
        }
        let seen = Seen { answer: Some(answer.clone()), data_version: Some(data_version), highest_serial: serial };
        self.seen.insert(node_id.clone(), seen);
        Ok(answer)
    }
}

fn data_version(connection: &Connection) -> Result<i64, Fault> {
    let mut statement = connection.prepare_cached("PRAGMA data_version")?;
    Ok(statement.query_row([], |row| row.get(0))?)
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
