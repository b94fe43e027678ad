//! A host in memory, for tests and first steps: nothing it takes is durable.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use crate::{
    answer::{Answer, Row},
    gate::now_ms,
    guard::{Appended, Sink, Source},
    lock::lock,
};

/// Rows and frames.
#[derive(Debug, Default)]
pub(crate) struct MemoryHost {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<String, Stored>,
    /// The members of a JSON array.
    frames: String,
    fault: Option<String>,
}

#[derive(Debug, Clone)]
struct Stored {
    enrollment_ref: String,
    status: String,
    rollout_state: String,
    serial: u64,
}

impl MemoryHost {
    /// Enrolls a node, or changes its row.
    pub(crate) fn enroll(&self, node_id: &str, enrollment_ref: &str, status: &str, rollout_state: &str) {
        self.with(|state| {
            let serial = state.rows.get(node_id).map_or(1, |row| row.serial.saturating_add(1));
            let row = Stored {
                enrollment_ref: enrollment_ref.to_owned(),
                status: status.to_owned(),
                rollout_state: rollout_state.to_owned(),
                serial,
            };
            state.rows.insert(node_id.to_owned(), row);
        });
    }

    /// Revokes a node: its next call is denied.
    pub(crate) fn revoke(&self, node_id: &str) {
        self.with(|state| {
            if let Some(row) = state.rows.get_mut(node_id) {
                row.status = "revoked".to_owned();
                row.serial = row.serial.saturating_add(1);
            }
        });
    }

    /// While set, look-ups and appends fail with it.
    pub(crate) fn fail(&self, why: Option<&str>) {
        self.with(|state| state.fault = why.map(str::to_owned));
    }

    /// What was appended: the text of a JSON array.
    pub(crate) fn frames(&self) -> String {
        self.with(|state| format!("[{}]", state.frames))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut lock(&self.state, |state| *state = State::default()))
    }
}

impl Source for MemoryHost {
    fn look_up(&self, node_id: &str, _: Duration) -> Result<Answer, String> {
        self.with(|state| match (&state.fault, state.rows.get(node_id)) {
            (Some(why), _) => Err(why.clone()),
            (None, None) => Ok(Answer::not_enrolled(now_ms())),
            (None, Some(Stored { enrollment_ref, status, rollout_state, serial })) => {
                Ok(Answer::enrolled(Row { node_id, enrollment_ref, status, rollout_state, serial: *serial }, now_ms()))
            }
        })
    }
}

impl Sink for MemoryHost {
    fn append(&self, frames: &str, _: Duration) -> Appended {
        self.with(|state| {
            if let Some(why) = &state.fault {
                return Appended::Failed(why.clone());
            }
            let members = frames.trim().trim_start_matches('[');
            let members = members.strip_suffix(']').unwrap_or(members);
            if !state.frames.is_empty() && !members.is_empty() {
                state.frames.push(',');
            }
            state.frames.push_str(members);
            Appended::Durable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_a_panic_marked_as_dead_knows_no_node() {
        let host = MemoryHost::default();
        host.enroll("robot-7", "fleet@1", "active", "<none>");
        assert_eq!(host.append("[1]", Duration::ZERO), Appended::Durable);
        crate::lock::kill(&host.state);
        let answer = host.look_up("robot-7", Duration::ZERO).unwrap().observation();
        assert_eq!(answer.unwrap().same, Answer::not_enrolled(1).observation().unwrap().same);
        assert_eq!(host.frames(), "[]");
    }
}
