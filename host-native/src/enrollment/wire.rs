//! What an orchestrator and those who ask it send each other, beside rows and changes as they are.

use std::time::Duration;

use gate_core::{NodeId, RolloutState, enrollment::Status, identity::EnrollmentRef, read_object};
use serde::{Deserialize, Serialize};

use super::{
    Change, Row,
    rollout::{Directive, Rollout, RolloutId},
};

/// Most rows or changes in one answer.
pub(crate) const PAGE: usize = 1000;

/// Most rollouts in one answer: each may name nodes.
pub(crate) const ROLLOUTS: usize = 50;

/// Longest time that a request for changes may wait for one, in milliseconds.
pub(crate) const WAIT_MS: u64 = 30_000;

/// Largest body of a request, in bytes.
pub(crate) const BODY_BYTES: usize = 64 * 1024;

/// Longest that an orchestrator takes for a request, and that whoever asks for the steps of a rollout waits: for a million nodes they
/// take some minutes.
pub(crate) const STEPS_TIMEOUT: Duration = Duration::from_secs(900);

/// `PUT /v1/enrollments/{node_id}`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(crate) struct Enroll {
    /// The ref that the node's bundle declares, byte for byte.
    pub(crate) enrollment_ref: EnrollmentRef,
    /// Whether to replace the ref of a node that is active with another one; left out, that is refused.
    pub(crate) replace: Option<bool>,
}

read_object!(Enroll { enrollment_ref, replace });

/// `PUT /v1/enrollments/{node_id}/rollout`
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(crate) struct SetRollout {
    /// Where the node's rollout stands.
    pub(crate) rollout_state: RolloutState,
}

read_object!(SetRollout { rollout_state });

/// What is known of a node.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    /// `null` when the node was never enrolled.
    pub(crate) row: Option<Row>,
}

/// Rows in the byte order of their node ids.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    /// The `after` of the next page; `null` on the last one.
    pub(crate) next_after: Option<NodeId>,
}

/// A node's changes, oldest first.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    pub(crate) changes: Vec<Change>,
    /// The `after` of the next page; `null` on the last one.
    pub(crate) next_after: Option<u64>,
}

/// Rollouts, the latest first.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollouts {
    pub(crate) rollouts: Vec<Rollout>,
    /// The `before` of the next page; `null` on the last one.
    pub(crate) next_before: Option<RolloutId>,
}

/// A rollout, and its directives in the byte order of their nodes.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Directives {
    pub(crate) rollout: Rollout,
    pub(crate) directives: Vec<Directive>,
    /// The `after` of the next page; `null` on the last one.
    pub(crate) next_after: Option<NodeId>,
}

/// What a node is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Current {
    /// `null` when nothing was ordered: since the node was enrolled, or by the rollout that was asked for.
    pub(crate) directive: Option<Directive>,
}

/// How many rows there are.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    pub(crate) count: u64,
}

/// `GET /v1/enrollments?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    pub(crate) status: Option<Status>,
    pub(crate) after: Option<NodeId>,
    pub(crate) limit: Option<usize>,
}

/// `GET /v1/count?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountQuery {
    pub(crate) status: Option<Status>,
}

/// `GET /v1/enrollments/{node_id}/history?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    pub(crate) after: Option<u64>,
    pub(crate) limit: Option<usize>,
}

/// `GET /v1/rollouts?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutsQuery {
    pub(crate) before: Option<RolloutId>,
    pub(crate) limit: Option<usize>,
}

/// `GET /v1/rollouts/{rollout_id}?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectivesQuery {
    pub(crate) after: Option<NodeId>,
    pub(crate) limit: Option<usize>,
}

/// `GET /v1/changes?…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesQuery {
    pub(crate) after: Option<u64>,
    pub(crate) node_id: Option<NodeId>,
    pub(crate) limit: Option<usize>,
    pub(crate) wait_ms: Option<u64>,
}
