// Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.

/** Every reason: what the wire, the log and the metrics say, byte for byte. */
export const Reason = {
  /** No bundle is loaded, or its tar, manifest, digests or signatures do not hold. */
  BundleUnverified: "attestation: bundle_unverified",
  /** The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`. */
  EnrollmentRefUndeclared: "attestation: enrollment_ref_undeclared",
  /** The runtime was started without a node id. */
  NodeIdUnset: "attestation: node_id_unset",
  /** The enrollment source failed, timed out, or answered nonsense. */
  EnrollmentUnavailable: "attestation: enrollment_unavailable",
  /** An enrollment lease whose signature, node id or serial does not hold. */
  EnrollmentUntrusted: "attestation: enrollment_untrusted",
  /** The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future. */
  EnrollmentStale: "attestation: enrollment_stale",
  /** The enrollment source answered: no such node. */
  NotEnrolled: "attestation: not_enrolled",
  /** The node's enrollment status is anything but `active`. */
  EnrollmentRevoked: "attestation: enrollment_revoked",
  /** The ref the node is enrolled with is not, byte for byte, the one its bundle declares. */
  EnrollmentRefMismatch: "attestation: enrollment_ref_mismatch",
  /** The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`. */
  RolloutIncoherent: "attestation: rollout_incoherent",
  /** `data.autonomy.allow` is true for this call. */
  Allowed: "policy: allowed",
  /** `data.autonomy.allow` is false for this call. */
  Denied: "policy: denied",
  /** `data.autonomy.allow` has no value for this call, or one that is not a boolean. */
  Undefined: "policy: undefined",
  /** The policy engine could not evaluate the call. */
  EvaluationFailed: "policy: evaluation_failed",
  /** The runtime was started without a bundle, so there is no policy to ask. */
  NoBundle: "policy: no_bundle",
  /** The decision could not be written down durably, so the tool did not run. */
  WalUnavailable: "audit: wal_unavailable",
} as const;

/** What the gate found wrong, in the order of the sub-checks. */
export type AttestationReason =
  | "attestation: bundle_unverified"
  | "attestation: enrollment_ref_undeclared"
  | "attestation: node_id_unset"
  | "attestation: enrollment_unavailable"
  | "attestation: enrollment_untrusted"
  | "attestation: enrollment_stale"
  | "attestation: not_enrolled"
  | "attestation: enrollment_revoked"
  | "attestation: enrollment_ref_mismatch"
  | "attestation: rollout_incoherent";

/** What the policy answered. */
export type PolicyReason =
  | "policy: allowed"
  | "policy: denied"
  | "policy: undefined"
  | "policy: evaluation_failed"
  | "policy: no_bundle";

/** Why a decision could not be recorded. */
export type AuditReason =
  | "audit: wal_unavailable";

/** A reason. */
export type Reason = AttestationReason | PolicyReason | AuditReason;

/** The text of a reason, by its stable number. */
export const REASON_TEXTS: Readonly<Record<number, Reason>> = {
  1: "attestation: bundle_unverified",
  2: "attestation: enrollment_ref_undeclared",
  3: "attestation: node_id_unset",
  4: "attestation: enrollment_unavailable",
  5: "attestation: enrollment_untrusted",
  6: "attestation: enrollment_stale",
  7: "attestation: not_enrolled",
  8: "attestation: enrollment_revoked",
  9: "attestation: enrollment_ref_mismatch",
  10: "attestation: rollout_incoherent",
  101: "policy: allowed",
  102: "policy: denied",
  103: "policy: undefined",
  104: "policy: evaluation_failed",
  105: "policy: no_bundle",
  201: "audit: wal_unavailable",
};

/** The stable number of a reason. */
export const REASON_NUMBERS: Readonly<Record<Reason, number>> = {
  "attestation: bundle_unverified": 1,
  "attestation: enrollment_ref_undeclared": 2,
  "attestation: node_id_unset": 3,
  "attestation: enrollment_unavailable": 4,
  "attestation: enrollment_untrusted": 5,
  "attestation: enrollment_stale": 6,
  "attestation: not_enrolled": 7,
  "attestation: enrollment_revoked": 8,
  "attestation: enrollment_ref_mismatch": 9,
  "attestation: rollout_incoherent": 10,
  "policy: allowed": 101,
  "policy: denied": 102,
  "policy: undefined": 103,
  "policy: evaluation_failed": 104,
  "policy: no_bundle": 105,
  "audit: wal_unavailable": 201,
};

/** What the operator does next, in a line. */
export const REMEDIES: Readonly<Record<Reason, string>> = {
  "attestation: bundle_unverified":
    "run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key",
  "attestation: enrollment_ref_undeclared":
    "rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`",
  "attestation: node_id_unset":
    "set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime",
  "attestation: enrollment_unavailable":
    "make the enrollment source reachable; the frame's `detail` says what failed",
  "attestation: enrollment_untrusted":
    "check the lease keys the node trusts; a lease that is older than one already seen is refused",
  "attestation: enrollment_stale":
    "reconnect the node to its enrollment source, and check both clocks",
  "attestation: not_enrolled":
    "run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`",
  "attestation: enrollment_revoked":
    "enroll the node again with `autonomy node enroll` once it may run",
  "attestation: enrollment_ref_mismatch":
    "give the node the bundle of its enrollment, or enroll it with the bundle's ref",
  "attestation: rollout_incoherent":
    "finish or repeat the rollout; see `autonomy attestation status --node-id <id>`",
  "policy: allowed":
    "nothing to do",
  "policy: denied":
    "change the call, or the policy in the bundle",
  "policy: undefined":
    "add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean",
  "policy: evaluation_failed":
    "mend the policy; the frame's `detail` says where it failed",
  "policy: no_bundle":
    "start the runtime with a bundle that `autonomy bundle verify` accepts",
  "audit: wal_unavailable":
    "see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often",
};

/** Of all reasons: `reasons` of a module that knows the same ones. */
export const REASONS_DIGEST = "sha256:1bf236398edde4cac1095ab1a473306f4c4c3873777a8443ba053dd630913298";
