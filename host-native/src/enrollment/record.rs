//! What is in a database, whichever it is: text and numbers that anybody may have written, on their way to being ours.

use std::{borrow::Cow, fmt};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    limits::ENROLLMENT_REF_BYTES,
    text,
};

use super::{Action, Change, Changes, Revised, Row, StoreError};

/// One row of an answer.
pub(super) trait Record {
    type Fault: From<StoreError>;

    /// Whatever is in the column, as text: what does not fit its type fails to parse, by name.
    fn optional(&self, index: usize) -> Result<Option<Cow<'_, str>>, Self::Fault>;

    /// The same, and empty where there is nothing.
    fn text(&self, index: usize) -> Result<Cow<'_, str>, Self::Fault> {
        Ok(self.optional(index)?.unwrap_or_default())
    }
}

/// Reads a row: node id, ref, status, rollout state, serial, created at, updated at.
pub(super) fn row<R: Record>(record: &R) -> Result<Row, R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    Ok(Row {
        enrollment: Enrollment {
            node_id: on_disk.parse("node_id", 0, NodeId::parse)?,
            enrollment_ref: on_disk.parse("enrollment_ref", 1, EnrollmentRef::parse)?,
            // Words that nobody knows are kept as they came: the gate denies them by name.
            status: Status::from_word(&record.text(2)?),
            rollout_state: RolloutState::from_word(&record.text(3)?),
            serial: on_disk.count("serial", 4)?,
        },
        created_at_ms: on_disk.count("created_at_ms", 5)?,
        updated_at_ms: on_disk.count("updated_at_ms", 6)?,
    })
}

/// Reads an entry of the history: node id, serial, action, who, when, then ref, status and rollout state before, and
/// after.
pub(super) fn change<R: Record>(record: &R) -> Result<Change, R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    let node_id = on_disk.parse("node_id", 0, NodeId::parse)?;
    let serial = on_disk.count("serial", 1)?;
    let action = on_disk.parse("action", 2, |word| {
        Action::ALL.iter().find(|action| action.as_str() == word).copied().ok_or("no such action")
    })?;
    let enrollment = |column, first: usize, serial| -> Result<Enrollment, R::Fault> {
        Ok(Enrollment {
            node_id: node_id.clone(),
            enrollment_ref: on_disk.parse(column, first, EnrollmentRef::parse)?,
            status: Status::from_word(&record.text(first.saturating_add(1))?),
            rollout_state: RolloutState::from_word(&record.text(first.saturating_add(2))?),
            serial,
        })
    };
    let before = match action {
        Action::Enroll => None,
        Action::Reenroll | Action::Replace | Action::Revoke | Action::SetRollout => {
            Some(enrollment("before_ref", 5, serial.saturating_sub(1))?)
        }
    };
    Ok(Change {
        action,
        who: record.text(3)?.into_owned(),
        at_ms: on_disk.count("at_ms", 4)?,
        before,
        after: enrollment("after_ref", 8, serial)?,
    })
}

/// Reads an entry of the history and, behind it, its revision.
pub(super) fn revised<R: Record>(record: &R) -> Result<Revised, R::Fault> {
    let on_disk = OnDisk { record, node_id: record.text(0)? };
    Ok(Revised { revision: on_disk.count("revision", 11)?, change: change(record)? })
}

/// A page of changes from a store whose latest revision was `latest` before they were read.
pub(super) fn page(changes: Vec<Revised>, latest: u64, limit: usize) -> Changes {
    let last = changes.last().map(|revised| revised.revision);
    let cursor = if changes.len() < limit { latest } else { last.unwrap_or(latest) };
    Changes { changes, cursor }
}

/// Signed 64 bits are what every SQL database keeps.
pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// What is written of an enrollment besides its node id and serial.
pub(super) fn words(enrollment: &Enrollment) -> [&str; 3] {
    [enrollment.enrollment_ref.as_str(), enrollment.status.as_str(), enrollment.rollout_state.as_str()]
}

/// A row that may have been written by anybody.
pub(super) struct OnDisk<'a, R> {
    pub(super) record: &'a R,
    pub(super) node_id: Cow<'a, str>,
}

impl<R: Record> OnDisk<'_, R> {
    pub(super) fn parse<T, E: fmt::Display>(
        &self,
        column: &'static str,
        index: usize,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, R::Fault> {
        let value = self.record.text(index)?;
        parse(&value).map_err(|why| {
            // Whoever edited the database may have put anything in: a message stays one line that can be read.
            let cut = |text| text::cut(text, ENROLLMENT_REF_BYTES).to_owned();
            let (node_id, value, why) = (cut(&self.node_id), cut(&value), why.to_string());
            StoreError::Damaged { node_id, column, value, why }.into()
        })
    }

    pub(super) fn count(&self, column: &'static str, index: usize) -> Result<u64, R::Fault> {
        self.parse(column, index, str::parse)
    }
}
