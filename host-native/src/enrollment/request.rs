//! The rules of every store: no I/O, a row in, the next row out.

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
};

use super::{Action, IfActive, StoreError};

/// Longest name of an author, in bytes.
const WHO_BYTES: usize = 256;

/// What is asked of one node.
pub(super) enum Request<'a> {
    Enroll { enrollment_ref: &'a EnrollmentRef, if_active: IfActive },
    Revoke,
    SetRollout(&'a RolloutState),
}

/// What a store finds under a node id, inside the transaction that will change it.
pub(super) enum Found {
    Row(Enrollment),
    /// No row; perhaps one whose id differs only in case.
    Nothing {
        close: Option<NodeId>,
    },
}

impl Request<'_> {
    /// The next state of the node; nothing when it already is as asked.
    pub(super) fn next(&self, node_id: &NodeId, found: &Found) -> Result<Option<(Action, Enrollment)>, StoreError> {
        let before = match (found, self) {
            (Found::Row(before), _) => before,
            (Found::Nothing { close: None }, Self::Enroll { enrollment_ref, .. }) => {
                return Ok(Some((Action::Enroll, fresh(node_id, enrollment_ref, 1))));
            }
            (Found::Nothing { close: Some(existing) }, Self::Enroll { .. }) => {
                return Err(StoreError::CaseConflict { node_id: node_id.clone(), existing: existing.clone() });
            }
            (Found::Nothing { close }, Self::Revoke | Self::SetRollout(_)) => {
                return Err(StoreError::NotEnrolled { node_id: node_id.clone(), close: close.clone() });
            }
        };
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
                Ok(Some((action, fresh(node_id, enrollment_ref, next_serial(before)?))))
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
        }
    }

    /// What can be refused without looking at the store.
    pub(super) fn check(&self, who: &str) -> Result<(), StoreError> {
        check_author(who)?;
        match self {
            Self::SetRollout(RolloutState::Unknown(word)) => {
                Err(StoreError::UnknownRolloutState { word: word.clone() })
            }
            Self::SetRollout(_) | Self::Enroll { .. } | Self::Revoke => Ok(()),
        }
    }
}

/// The history has to name somebody.
pub(super) fn check_author(who: &str) -> Result<(), StoreError> {
    if who.is_empty() || who.len() > WHO_BYTES || who.chars().any(char::is_control) {
        let kept = who.get(..who.floor_char_boundary(WHO_BYTES)).unwrap_or(who);
        return Err(StoreError::Author { who: kept.to_owned() });
    }
    Ok(())
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
