//! What a caller gets: the right to run a tool once, or the denial.

use gate_core::{
    AuditId, NodeId, PolicyRef, Reason, ToolName,
    frame::{ActionAttrs, ActionOutcome, Kind},
};
use std::{sync::Arc, time::Instant};

use super::{append_later, frame};
use crate::wal::Wal;

/// A call that is not to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// Which policies answered.
    pub policy_ref: Option<PolicyRef>,
    /// Joins the frames of the call.
    pub audit_id: AuditId,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (audit id `{}`): {}", self.reason, self.audit_id, self.reason.remedy())
    }
}

impl std::error::Error for Denial {}

/// How a tool went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolOutcome {
    /// It did its work.
    Completed,
    /// It did not.
    Failed,
}

impl<T, E> From<&Result<T, E>> for ToolOutcome {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Completed } else { Self::Failed }
    }
}

/// The right to run one tool once. The decision behind it is durable.
///
/// Say how the tool went with [`Self::finish`]; a permit that is dropped is written down as abandoned.
#[derive(Debug)]
#[must_use = "a permit that is dropped is written down as abandoned"]
pub struct Permit {
    /// Joins the frames of the call.
    pub audit_id: AuditId,
    /// Which policies answered.
    pub policy_ref: Option<PolicyRef>,
    pub(super) tool: ToolName,
    pub(super) node_id: Option<NodeId>,
    pub(super) started: Instant,
    pub(super) wal: Option<Arc<Wal>>,
}

impl Permit {
    /// Writes down how the tool went, without waiting for the disk: what counted was the decision.
    pub fn finish(mut self, outcome: impl Into<ToolOutcome>) {
        self.write(match outcome.into() {
            ToolOutcome::Completed => ActionOutcome::Completed,
            ToolOutcome::Failed => ActionOutcome::Failed,
        });
    }

    fn write(&mut self, outcome: ActionOutcome) {
        if let Some(wal) = self.wal.take() {
            let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let attrs = ActionAttrs { tool: self.tool.clone(), outcome, took_ms };
            append_later(&wal, frame(Kind::Action, self.audit_id.clone(), self.node_id.clone(), &attrs));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.write(ActionOutcome::Abandoned);
    }
}
