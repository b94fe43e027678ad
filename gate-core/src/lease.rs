//! Leases: enrollment answers that an orchestrator signs, so that whoever carries them needs no trust.

use alloc::string::String;
use serde::{Deserialize, Serialize};

use crate::{
    dsse::{Envelope, EnvelopeError},
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    json,
    key::TrustedKeys,
    text::{decimal, display_text, fill, line},
};

/// What a lease's envelope holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.autonomy.enrollment.lease.v1+json";

/// What to do about a lease that nobody here can mend.
const ANOTHER: &str = "get another lease from the orchestrator";

/// What the orchestrator says of one node, until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The node.
    pub node_id: NodeId,
    /// The ref it is enrolled with.
    pub enrollment_ref: EnrollmentRef,
    /// Active or revoked.
    pub status: Status,
    /// Where its rollout stands.
    pub rollout_state: RolloutState,
    /// Only grows, for a node.
    pub serial: u64,
    /// From when it counts, in milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
    /// Until when it counts, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

crate::read_object!(Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms, expires_at_ms });

/// Why a lease is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseError {
    /// No lease keys are trusted.
    NoTrustedKeys,
    /// The runtime has no node id that a lease could be for.
    NoNodeId,
    /// The envelope.
    Envelope(EnvelopeError),
    /// The signed payload is no lease.
    Malformed(String),
    /// A lease for another node.
    NodeId {
        /// This node.
        expected: NodeId,
        /// The lease's.
        found: NodeId,
    },
    /// A lease that is older than one already seen.
    Serial {
        /// The highest seen.
        seen: u64,
        /// The lease's.
        found: u64,
    },
}

impl LeaseError {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::NoTrustedKeys => "no lease keys are trusted: give the orchestrator's public keys".into(),
            Self::NoNodeId => "this runtime has no node id that a lease could be for: set its node id".into(),
            Self::Envelope(error @ EnvelopeError::Threshold { untrusted, .. }) if !untrusted.is_empty() => error.text(),
            // The envelope's own remedy is how to sign a bundle.
            Self::Envelope(EnvelopeError::Threshold { needed, trusted, .. }) => {
                let (trusted, needed) = (decimal(*trusted as u64), decimal(*needed as u64));
                fill("{} of {} needed trusted keys have signed; {}", &[&trusted, &needed, ANOTHER])
            }
            Self::Envelope(error) => fill("{}; {}", &[&error.text(), ANOTHER]),
            Self::Malformed(why) => fill("lease: {}; {}", &[why, ANOTHER]),
            Self::NodeId { expected, found } => fill(
                "lease is for node `{}`, this node is `{}`: correct the node id, or {}",
                &[found.as_str(), expected.as_str(), ANOTHER],
            ),
            Self::Serial { seen, found } => {
                let (seen, found) = (decimal(*seen), decimal(*found));
                fill("lease has serial {}, one with {} was already seen: {}", &[&found, &seen, ANOTHER])
            }
        }
    }
}

display_text!(LeaseError);

impl core::error::Error for LeaseError {}

impl Lease {
    /// Reads a lease's envelope for `node_id`, knowing that `seen` is the highest serial so far.
    ///
    /// The same serial may come again: a lease is renewed without a change of its row.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(
        envelope: &[u8],
        keys: Option<&TrustedKeys>,
        node_id: Option<&NodeId>,
        seen: u64,
    ) -> Result<Self, LeaseError> {
        let keys = keys.ok_or(LeaseError::NoTrustedKeys)?;
        let expected = node_id.ok_or(LeaseError::NoNodeId)?;
        let envelope = Envelope::parse(envelope).map_err(LeaseError::Envelope)?;
        envelope.verify(PAYLOAD_TYPE, keys).map_err(LeaseError::Envelope)?;
        let lease: Self = json::read(&envelope.payload).map_err(|error| LeaseError::Malformed(line(&error.text())))?;
        if lease.node_id != *expected {
            return Err(LeaseError::NodeId { expected: expected.clone(), found: lease.node_id });
        }
        if lease.serial < seen {
            return Err(LeaseError::Serial { seen, found: lease.serial });
        }
        Ok(lease)
    }

    /// The row that the lease carries.
    pub fn into_enrollment(self) -> Enrollment {
        let Self { node_id, enrollment_ref, status, rollout_state, serial, .. } = self;
        Enrollment { node_id, enrollment_ref, status, rollout_state, serial }
    }
}
