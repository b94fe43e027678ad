//! Every reason, for C. Generated from `gate-core/reasons.toml` by `cargo xtask codegen`; do not edit.

use std::ffi::CStr;

/// Why a call was answered as it was: stable numbers, 0 where there is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ag_reason {
    /// None: the call is allowed, or the gate passes.
    AG_REASON_NONE = 0,
    /// `attestation: bundle_unverified`: No bundle is loaded, or its tar, manifest, digests or signatures do not hold.
    AG_ATTESTATION_BUNDLE_UNVERIFIED = 1,
    /// `attestation: enrollment_ref_undeclared`: The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`.
    AG_ATTESTATION_ENROLLMENT_REF_UNDECLARED = 2,
    /// `attestation: node_id_unset`: The runtime was started without a node id.
    AG_ATTESTATION_NODE_ID_UNSET = 3,
    /// `attestation: enrollment_unavailable`: The enrollment source failed, timed out, or answered nonsense.
    AG_ATTESTATION_ENROLLMENT_UNAVAILABLE = 4,
    /// `attestation: enrollment_untrusted`: An enrollment lease whose signature, node id or serial does not hold.
    AG_ATTESTATION_ENROLLMENT_UNTRUSTED = 5,
    /// `attestation: enrollment_stale`: The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future.
    AG_ATTESTATION_ENROLLMENT_STALE = 6,
    /// `attestation: not_enrolled`: The enrollment source answered: no such node.
    AG_ATTESTATION_NOT_ENROLLED = 7,
    /// `attestation: enrollment_revoked`: The node's enrollment status is anything but `active`.
    AG_ATTESTATION_ENROLLMENT_REVOKED = 8,
    /// `attestation: enrollment_ref_mismatch`: The ref the node is enrolled with is not, byte for byte, the one its bundle declares.
    AG_ATTESTATION_ENROLLMENT_REF_MISMATCH = 9,
    /// `attestation: rollout_incoherent`: The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`.
    AG_ATTESTATION_ROLLOUT_INCOHERENT = 10,
    /// `policy: allowed`: `data.autonomy.allow` is true for this call.
    AG_POLICY_ALLOWED = 101,
    /// `policy: denied`: `data.autonomy.allow` is false for this call.
    AG_POLICY_DENIED = 102,
    /// `policy: undefined`: `data.autonomy.allow` has no value for this call, or one that is not a boolean.
    AG_POLICY_UNDEFINED = 103,
    /// `policy: evaluation_failed`: The policy engine could not evaluate the call.
    AG_POLICY_EVALUATION_FAILED = 104,
    /// `policy: no_bundle`: The runtime was started without a bundle, so there is no policy to ask.
    AG_POLICY_NO_BUNDLE = 105,
    /// `audit: wal_unavailable`: The decision could not be written down durably, so the tool did not run.
    AG_AUDIT_WAL_UNAVAILABLE = 201,
}

/// A reason's number, its text on the wire, and what the operator does next.
pub type Row = (ag_reason, &'static CStr, &'static CStr);

/// Every reason, by number.
#[rustfmt::skip]
pub const REASONS: &[Row] = &[
    (ag_reason::AG_ATTESTATION_BUNDLE_UNVERIFIED, c"attestation: bundle_unverified", c"run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_REF_UNDECLARED, c"attestation: enrollment_ref_undeclared", c"rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`"),
    (ag_reason::AG_ATTESTATION_NODE_ID_UNSET, c"attestation: node_id_unset", c"set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_UNAVAILABLE, c"attestation: enrollment_unavailable", c"make the enrollment source reachable; the frame's `detail` says what failed"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_UNTRUSTED, c"attestation: enrollment_untrusted", c"check the lease keys the node trusts; a lease that is older than one already seen is refused"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_STALE, c"attestation: enrollment_stale", c"reconnect the node to its enrollment source, and check both clocks"),
    (ag_reason::AG_ATTESTATION_NOT_ENROLLED, c"attestation: not_enrolled", c"run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_REVOKED, c"attestation: enrollment_revoked", c"enroll the node again with `autonomy node enroll` once it may run"),
    (ag_reason::AG_ATTESTATION_ENROLLMENT_REF_MISMATCH, c"attestation: enrollment_ref_mismatch", c"give the node the bundle of its enrollment, or enroll it with the bundle's ref"),
    (ag_reason::AG_ATTESTATION_ROLLOUT_INCOHERENT, c"attestation: rollout_incoherent", c"finish or repeat the rollout; see `autonomy attestation status --node-id <id>`"),
    (ag_reason::AG_POLICY_ALLOWED, c"policy: allowed", c"nothing to do"),
    (ag_reason::AG_POLICY_DENIED, c"policy: denied", c"change the call, or the policy in the bundle"),
    (ag_reason::AG_POLICY_UNDEFINED, c"policy: undefined", c"add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean"),
    (ag_reason::AG_POLICY_EVALUATION_FAILED, c"policy: evaluation_failed", c"mend the policy; the frame's `detail` says where it failed"),
    (ag_reason::AG_POLICY_NO_BUNDLE, c"policy: no_bundle", c"start the runtime with a bundle that `autonomy bundle verify` accepts"),
    (ag_reason::AG_AUDIT_WAL_UNAVAILABLE, c"audit: wal_unavailable", c"see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often"),
];

/// The SHA-256 of all of them: `reasons` of a gate that knows the same ones.
pub const REASONS_DIGEST: &str = "sha256:1bf236398edde4cac1095ab1a473306f4c4c3873777a8443ba053dd630913298";
