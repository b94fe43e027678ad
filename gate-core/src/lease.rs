//! Leases: enrollment answers that an orchestrator signs, so that whoever carries them needs no trust.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{
    dsse::{Envelope, EnvelopeError},
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    json,
    key::TrustedKeys,
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

impl fmt::Display for LeaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrustedKeys => f.write_str("no lease keys are trusted: give the orchestrator's public keys"),
            Self::NoNodeId => f.write_str("this runtime has no node id that a lease could be for: set its node id"),
            Self::Envelope(error @ EnvelopeError::Threshold { untrusted, .. }) if !untrusted.is_empty() => error.fmt(f),
            // The envelope's own remedy is how to sign a bundle.
            Self::Envelope(EnvelopeError::Threshold { needed, trusted, .. }) => {
                write!(f, "{trusted} of {needed} needed trusted keys have signed; {ANOTHER}")
            }
            Self::Envelope(error) => write!(f, "{error}; {ANOTHER}"),
            Self::Malformed(why) => write!(f, "lease: {why}; {ANOTHER}"),
            Self::NodeId { expected, found } => {
                write!(f, "lease is for node `{found}`, this node is `{expected}`: correct the node id, or {ANOTHER}")
            }
            Self::Serial { seen, found } => {
                write!(f, "lease has serial {found}, one with {seen} was already seen: {ANOTHER}")
            }
        }
    }
}

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
        let lease: Self =
            json::read(&envelope.payload).map_err(|error| LeaseError::Malformed(crate::text::line(&error)))?;
        if lease.node_id != *expected {
            return Err(LeaseError::NodeId { expected: expected.clone(), found: lease.node_id });
        }
        if lease.serial < seen {
            return Err(LeaseError::Serial { seen, found: lease.serial });
        }
        Ok(lease)
    }

    /// The row that the lease carries.
    pub fn enrollment(&self) -> Enrollment {
        Enrollment {
            node_id: self.node_id.clone(),
            enrollment_ref: self.enrollment_ref.clone(),
            status: self.status.clone(),
            rollout_state: self.rollout_state.clone(),
            serial: self.serial,
        }
    }
}
