//! The rules of every store: no I/O, a row in, the next row out.

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    text,
};

use super::{Action, Change, IfActive, Mutation, Row, StoreError};

/// Longest name of an author, in bytes.
const WHO_BYTES: usize = 256;

/// Who does something, and when.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) who: &'a str,
    pub(super) now_ms: u64,
}

impl<'a> By<'a> {
    /// The history has to name somebody, and a time that every SQL database keeps.
    pub(super) fn new(who: &'a str, now_ms: u64) -> Result<Self, StoreError> {
        if who.is_empty() || who.len() > WHO_BYTES || who.chars().any(char::is_control) {
            return Err(StoreError::Author { who: text::cut(who, WHO_BYTES).to_owned() });
        }
        if i64::try_from(now_ms).is_err() {
            return Err(StoreError::Time { now_ms });
        }
        Ok(Self { who, now_ms })
    }
}

/// What is asked of one node.
pub(super) enum Request<'a> {
    Enroll {
        enrollment_ref: &'a EnrollmentRef,
        if_active: IfActive,
    },
    Revoke,
    SetRollout(&'a RolloutState),
    /// What follows from a step of the node's directive. A node that was taken back stays so, and is told that there is one.
    Step(&'a RolloutState),
}

/// What a store finds under a node id, inside the transaction that will change it.
pub(super) enum Found {
    Row(Row),
    /// No row; perhaps one whose id differs only in case.
    Nothing {
        close: Option<NodeId>,
    },
}

impl Request<'_> {
    /// What is to be written; without a change nothing is, for the row already is as asked.
    pub(super) fn on(&self, node_id: &NodeId, found: Found, by: By<'_>) -> Result<Mutation, StoreError> {
        let By { who, now_ms } = by;
        let (before, action, after) = match (found, self) {
            (Found::Row(row), _) => match self.next(node_id, &row.enrollment)? {
                Some((action, after)) => (Some(row), action, after),
                None => return Ok(Mutation { row, change: None }),
            },
            (Found::Nothing { close: None }, Self::Enroll { enrollment_ref, .. }) => {
                (None, Action::Enroll, fresh(node_id, enrollment_ref, 1))
            }
            (Found::Nothing { close: Some(existing) }, Self::Enroll { .. }) => {
                return Err(StoreError::CaseConflict { node_id: node_id.clone(), existing });
            }
            (Found::Nothing { close }, Self::Revoke | Self::SetRollout(_) | Self::Step(_)) => {
                return Err(StoreError::NotEnrolled { node_id: node_id.clone(), close });
            }
        };
        let created_at_ms = before.as_ref().map_or(now_ms, |row| row.created_at_ms);
        let row = Row { enrollment: after.clone(), created_at_ms, updated_at_ms: now_ms };
        let before = before.map(|row| row.enrollment);
        let change = Change { action, who: who.to_owned(), at_ms: now_ms, before, after };
        Ok(Mutation { row, change: Some(change) })
    }

    /// What can be refused without looking at the store.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::SetRollout(RolloutState::Unknown(word)) => {
                Err(StoreError::UnknownRolloutState { word: word.clone() })
            }
            Self::SetRollout(_) | Self::Step(_) | Self::Enroll { .. } | Self::Revoke => Ok(()),
        }
    }

    /// The next state of a node that has one; nothing when it already is as asked.
    fn next(&self, node_id: &NodeId, before: &Enrollment) -> Result<Option<(Action, Enrollment)>, StoreError> {
        match self {
            Self::Enroll { enrollment_ref, if_active } => {
                let action = match (&before.status, if_active) {
                    (Status::Revoked | Status::Unknown(_), _) => Action::Reenroll,
                    (Status::Active, _) if before.enrollment_ref == **enrollment_ref => return Ok(None),
                    (Status::Active, IfActive::Replace) => Action::Replace,
                    (Status::Active, IfActive::Refuse) => {
                        return Err(StoreError::RefConflict {
                            node_id: node_id.clone(),
                            existing: before.enrollment_ref.clone(),
                            requested: (*enrollment_ref).clone(),
                        });
                    }
                };
                let rollout_state = unless_taken_back(before, &RolloutState::None);
                let after = fresh(node_id, enrollment_ref, next_serial(before)?);
                Ok(Some((action, Enrollment { rollout_state, ..after })))
            }
            Self::Revoke if before.status == Status::Revoked => Ok(None),
            Self::Revoke => {
                let serial = next_serial(before)?;
                Ok(Some((Action::Revoke, Enrollment { status: Status::Revoked, serial, ..before.clone() })))
            }
            Self::SetRollout(state) if before.rollout_state == **state => Ok(None),
            Self::SetRollout(state) => {
                let (rollout_state, serial) = ((*state).clone(), next_serial(before)?);
                Ok(Some((Action::SetRollout, Enrollment { rollout_state, serial, ..before.clone() })))
            }
            Self::Step(state) => {
                let rollout_state = unless_taken_back(before, state);
                if rollout_state == before.rollout_state && rollout_state != RolloutState::RolledBack {
                    return Ok(None);
                }
                let serial = next_serial(before)?;
                Ok(Some((Action::SetRollout, Enrollment { rollout_state, serial, ..before.clone() })))
            }
        }
    }
}

/// What was taken back from a node it may run still, until it says that it runs something else: whoever chooses or enrolls it
/// again lifts nothing.
fn unless_taken_back(before: &Enrollment, next: &RolloutState) -> RolloutState {
    let is_taken_back = before.rollout_state == RolloutState::RolledBack && *next != RolloutState::Active;
    if is_taken_back { RolloutState::RolledBack } else { next.clone() }
}

/// A rollout belongs to the enrollment it was ordered under: a new enrollment starts without one.
fn fresh(node_id: &NodeId, enrollment_ref: &EnrollmentRef, serial: u64) -> Enrollment {
    Enrollment {
        node_id: node_id.clone(),
        enrollment_ref: enrollment_ref.clone(),
        status: Status::Active,
        rollout_state: RolloutState::None,
        serial,
    }
}

/// Signed 64 bits are what every SQL database keeps.
fn next_serial(before: &Enrollment) -> Result<u64, StoreError> {
    before.serial.checked_add(1).filter(|&serial| i64::try_from(serial).is_ok()).ok_or_else(|| StoreError::Damaged {
        node_id: before.node_id.to_string(),
        column: "serial",
        value: before.serial.to_string(),
        why: "it cannot grow".to_owned(),
    })
}
