//! Why a call was answered as it was. Generated from `reasons.toml` by `cargo xtask codegen`; do not edit.

use alloc::string::String;
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

use crate::json;

/// A reason: what the wire, the log and the metrics say, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Reason {
    /// What the gate found wrong, in the order of the sub-checks.
    Attestation(Attestation),
    /// What the policy answered.
    Policy(Policy),
    /// Why a decision could not be recorded.
    Audit(Audit),
}

impl Reason {
    /// Every reason, by number.
    pub const ALL: &'static [Self] = &[
        Self::Attestation(Attestation::BundleUnverified),
        Self::Attestation(Attestation::EnrollmentRefUndeclared),
        Self::Attestation(Attestation::NodeIdUnset),
        Self::Attestation(Attestation::EnrollmentUnavailable),
        Self::Attestation(Attestation::EnrollmentUntrusted),
        Self::Attestation(Attestation::EnrollmentStale),
        Self::Attestation(Attestation::NotEnrolled),
        Self::Attestation(Attestation::EnrollmentRevoked),
        Self::Attestation(Attestation::EnrollmentRefMismatch),
        Self::Attestation(Attestation::RolloutIncoherent),
        Self::Policy(Policy::Allowed),
        Self::Policy(Policy::Denied),
        Self::Policy(Policy::Undefined),
        Self::Policy(Policy::EvaluationFailed),
        Self::Policy(Policy::NoBundle),
        Self::Audit(Audit::WalUnavailable),
    ];

    /// Its stable number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Attestation(reason) => reason.number(),
            Self::Policy(reason) => reason.number(),
            Self::Audit(reason) => reason.number(),
        }
    }

    /// The canonical text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attestation(reason) => reason.as_str(),
            Self::Policy(reason) => reason.as_str(),
            Self::Audit(reason) => reason.as_str(),
        }
    }

    /// When it is given, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Attestation(reason) => reason.meaning(),
            Self::Policy(reason) => reason.meaning(),
            Self::Audit(reason) => reason.meaning(),
        }
    }

    /// What the operator does next, in a line.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Attestation(reason) => reason.remedy(),
            Self::Policy(reason) => reason.remedy(),
            Self::Audit(reason) => reason.remedy(),
        }
    }

    /// Where the book explains it: an anchor of its reasons page.
    pub const fn anchor(self) -> &'static str {
        match self {
            Self::Attestation(reason) => reason.anchor(),
            Self::Policy(reason) => reason.anchor(),
            Self::Audit(reason) => reason.anchor(),
        }
    }

    /// The version that first gave it.
    pub const fn since(self) -> &'static str {
        match self {
            Self::Attestation(reason) => reason.since(),
            Self::Policy(reason) => reason.since(),
            Self::Audit(reason) => reason.since(),
        }
    }

    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.number() == number)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no reason's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownReason;

impl UnknownReason {
    /// What is wrong, and what to do.
    pub fn text(&self) -> String {
        "not a reason: `autonomy attestation explain` lists them".into()
    }
}

crate::text::display_text!(UnknownReason);

impl From<UnknownReason> for json::Error {
    fn from(error: UnknownReason) -> Self {
        Self::new(error.text())
    }
}

impl core::error::Error for UnknownReason {}

impl FromStr for Reason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

impl json::Read for Reason {
    fn read(value: json::Value<'_>) -> Self {
        value.parsed(str::parse).unwrap_or(Self::Audit(Audit::WalUnavailable))
    }
}

impl TryFrom<String> for Reason {
    type Error = UnknownReason;
    fn try_from(text: String) -> Result<Self, UnknownReason> {
        text.parse()
    }
}

impl From<Reason> for &'static str {
    fn from(reason: Reason) -> Self {
        reason.as_str()
    }
}

/// What the gate found wrong, in the order of the sub-checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Attestation {
    /// No bundle is loaded, or its tar, manifest, digests or signatures do not hold.
    BundleUnverified = 1,
    /// The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`.
    EnrollmentRefUndeclared = 2,
    /// The runtime was started without a node id.
    NodeIdUnset = 3,
    /// The enrollment source failed, timed out, or answered nonsense.
    EnrollmentUnavailable = 4,
    /// An enrollment lease whose signature, node id or serial does not hold.
    EnrollmentUntrusted = 5,
    /// The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future.
    EnrollmentStale = 6,
    /// The enrollment source answered: no such node.
    NotEnrolled = 7,
    /// The node's enrollment status is anything but `active`.
    EnrollmentRevoked = 8,
    /// The ref the node is enrolled with is not, byte for byte, the one its bundle declares.
    EnrollmentRefMismatch = 9,
    /// The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`.
    RolloutIncoherent = 10,
}

impl Attestation {
    /// Every one, by number.
    pub const ALL: &'static [Self] = &[
        Self::BundleUnverified,
        Self::EnrollmentRefUndeclared,
        Self::NodeIdUnset,
        Self::EnrollmentUnavailable,
        Self::EnrollmentUntrusted,
        Self::EnrollmentStale,
        Self::NotEnrolled,
        Self::EnrollmentRevoked,
        Self::EnrollmentRefMismatch,
        Self::RolloutIncoherent,
    ];

    /// Its stable number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The canonical text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BundleUnverified => "attestation: bundle_unverified",
            Self::EnrollmentRefUndeclared => "attestation: enrollment_ref_undeclared",
            Self::NodeIdUnset => "attestation: node_id_unset",
            Self::EnrollmentUnavailable => "attestation: enrollment_unavailable",
            Self::EnrollmentUntrusted => "attestation: enrollment_untrusted",
            Self::EnrollmentStale => "attestation: enrollment_stale",
            Self::NotEnrolled => "attestation: not_enrolled",
            Self::EnrollmentRevoked => "attestation: enrollment_revoked",
            Self::EnrollmentRefMismatch => "attestation: enrollment_ref_mismatch",
            Self::RolloutIncoherent => "attestation: rollout_incoherent",
        }
    }

    /// When it is given, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::BundleUnverified => "No bundle is loaded, or its tar, manifest, digests or signatures do not hold.",
            Self::EnrollmentRefUndeclared => {
                "The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`."
            }
            Self::NodeIdUnset => "The runtime was started without a node id.",
            Self::EnrollmentUnavailable => "The enrollment source failed, timed out, or answered nonsense.",
            Self::EnrollmentUntrusted => "An enrollment lease whose signature, node id or serial does not hold.",
            Self::EnrollmentStale => {
                "The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future."
            }
            Self::NotEnrolled => "The enrollment source answered: no such node.",
            Self::EnrollmentRevoked => "The node's enrollment status is anything but `active`.",
            Self::EnrollmentRefMismatch => {
                "The ref the node is enrolled with is not, byte for byte, the one its bundle declares."
            }
            Self::RolloutIncoherent => {
                "The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`."
            }
        }
    }

    /// What the operator does next, in a line.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::BundleUnverified => {
                "run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key"
            }
            Self::EnrollmentRefUndeclared => "rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`",
            Self::NodeIdUnset => "set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime",
            Self::EnrollmentUnavailable => {
                "make the enrollment source reachable; the frame's `detail` says what failed"
            }
            Self::EnrollmentUntrusted => {
                "check the lease keys the node trusts; a lease that is older than one already seen is refused"
            }
            Self::EnrollmentStale => "reconnect the node to its enrollment source, and check both clocks",
            Self::NotEnrolled => "run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`",
            Self::EnrollmentRevoked => "enroll the node again with `autonomy node enroll` once it may run",
            Self::EnrollmentRefMismatch => {
                "give the node the bundle of its enrollment, or enroll it with the bundle's ref"
            }
            Self::RolloutIncoherent => "finish or repeat the rollout; see `autonomy attestation status --node-id <id>`",
        }
    }

    /// Where the book explains it: an anchor of its reasons page.
    pub const fn anchor(self) -> &'static str {
        match self {
            Self::BundleUnverified => "attestation-bundle-unverified",
            Self::EnrollmentRefUndeclared => "attestation-enrollment-ref-undeclared",
            Self::NodeIdUnset => "attestation-node-id-unset",
            Self::EnrollmentUnavailable => "attestation-enrollment-unavailable",
            Self::EnrollmentUntrusted => "attestation-enrollment-untrusted",
            Self::EnrollmentStale => "attestation-enrollment-stale",
            Self::NotEnrolled => "attestation-not-enrolled",
            Self::EnrollmentRevoked => "attestation-enrollment-revoked",
            Self::EnrollmentRefMismatch => "attestation-enrollment-ref-mismatch",
            Self::RolloutIncoherent => "attestation-rollout-incoherent",
        }
    }

    /// The version that first gave it.
    pub const fn since(self) -> &'static str {
        match self {
            Self::BundleUnverified => "0.1.0",
            Self::EnrollmentRefUndeclared => "0.1.0",
            Self::NodeIdUnset => "0.1.0",
            Self::EnrollmentUnavailable => "0.1.0",
            Self::EnrollmentUntrusted => "0.1.0",
            Self::EnrollmentStale => "0.1.0",
            Self::NotEnrolled => "0.1.0",
            Self::EnrollmentRevoked => "0.1.0",
            Self::EnrollmentRefMismatch => "0.1.0",
            Self::RolloutIncoherent => "0.1.0",
        }
    }
}

impl From<Attestation> for Reason {
    fn from(reason: Attestation) -> Self {
        Self::Attestation(reason)
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the policy answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Policy {
    /// `data.autonomy.allow` is true for this call.
    Allowed = 101,
    /// `data.autonomy.allow` is false for this call.
    Denied = 102,
    /// `data.autonomy.allow` has no value for this call, or one that is not a boolean.
    Undefined = 103,
    /// The policy engine could not evaluate the call.
    EvaluationFailed = 104,
    /// The runtime was started without a bundle, so there is no policy to ask.
    NoBundle = 105,
}

impl Policy {
    /// Every one, by number.
    pub const ALL: &'static [Self] =
        &[Self::Allowed, Self::Denied, Self::Undefined, Self::EvaluationFailed, Self::NoBundle];

    /// Its stable number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The canonical text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "policy: allowed",
            Self::Denied => "policy: denied",
            Self::Undefined => "policy: undefined",
            Self::EvaluationFailed => "policy: evaluation_failed",
            Self::NoBundle => "policy: no_bundle",
        }
    }

    /// When it is given, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Allowed => "`data.autonomy.allow` is true for this call.",
            Self::Denied => "`data.autonomy.allow` is false for this call.",
            Self::Undefined => "`data.autonomy.allow` has no value for this call, or one that is not a boolean.",
            Self::EvaluationFailed => "The policy engine could not evaluate the call.",
            Self::NoBundle => "The runtime was started without a bundle, so there is no policy to ask.",
        }
    }

    /// What the operator does next, in a line.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Allowed => "nothing to do",
            Self::Denied => "change the call, or the policy in the bundle",
            Self::Undefined => {
                "add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean"
            }
            Self::EvaluationFailed => "mend the policy; the frame's `detail` says where it failed",
            Self::NoBundle => "start the runtime with a bundle that `autonomy bundle verify` accepts",
        }
    }

    /// Where the book explains it: an anchor of its reasons page.
    pub const fn anchor(self) -> &'static str {
        match self {
            Self::Allowed => "policy-allowed",
            Self::Denied => "policy-denied",
            Self::Undefined => "policy-undefined",
            Self::EvaluationFailed => "policy-evaluation-failed",
            Self::NoBundle => "policy-no-bundle",
        }
    }

    /// The version that first gave it.
    pub const fn since(self) -> &'static str {
        match self {
            Self::Allowed => "0.1.0",
            Self::Denied => "0.1.0",
            Self::Undefined => "0.1.0",
            Self::EvaluationFailed => "0.1.0",
            Self::NoBundle => "0.1.0",
        }
    }
}

impl From<Policy> for Reason {
    fn from(reason: Policy) -> Self {
        Self::Policy(reason)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a decision could not be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Audit {
    /// The decision could not be written down durably, so the tool did not run.
    WalUnavailable = 201,
}

impl Audit {
    /// Every one, by number.
    pub const ALL: &'static [Self] = &[Self::WalUnavailable];

    /// Its stable number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The canonical text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WalUnavailable => "audit: wal_unavailable",
        }
    }

    /// When it is given, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::WalUnavailable => "The decision could not be written down durably, so the tool did not run.",
        }
    }

    /// What the operator does next, in a line.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::WalUnavailable => {
                "see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often"
            }
        }
    }

    /// Where the book explains it: an anchor of its reasons page.
    pub const fn anchor(self) -> &'static str {
        match self {
            Self::WalUnavailable => "audit-wal-unavailable",
        }
    }

    /// The version that first gave it.
    pub const fn since(self) -> &'static str {
        match self {
            Self::WalUnavailable => "0.1.0",
        }
    }
}

impl From<Audit> for Reason {
    fn from(reason: Audit) -> Self {
        Self::Audit(reason)
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
