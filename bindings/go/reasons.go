// Code generated from gate-core/reasons.toml by `cargo xtask codegen`; DO NOT EDIT.

package autonomygate

// What the gate found wrong, in the order of the sub-checks.
const (
	// No bundle is loaded, or its tar, manifest, digests or signatures do not hold.
	ReasonBundleUnverified Reason = "attestation: bundle_unverified"
	// The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`.
	ReasonEnrollmentRefUndeclared Reason = "attestation: enrollment_ref_undeclared"
	// The runtime was started without a node id.
	ReasonNodeIDUnset Reason = "attestation: node_id_unset"
	// The enrollment source failed, timed out, or answered nonsense.
	ReasonEnrollmentUnavailable Reason = "attestation: enrollment_unavailable"
	// An enrollment lease whose signature, node id or serial does not hold.
	ReasonEnrollmentUntrusted Reason = "attestation: enrollment_untrusted"
	// The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future.
	ReasonEnrollmentStale Reason = "attestation: enrollment_stale"
	// The enrollment source answered: no such node.
	ReasonNotEnrolled Reason = "attestation: not_enrolled"
	// The node's enrollment status is anything but `active`.
	ReasonEnrollmentRevoked Reason = "attestation: enrollment_revoked"
	// The ref the node is enrolled with is not, byte for byte, the one its bundle declares.
	ReasonEnrollmentRefMismatch Reason = "attestation: enrollment_ref_mismatch"
	// The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`.
	ReasonRolloutIncoherent Reason = "attestation: rollout_incoherent"
)

// What the policy answered.
const (
	// `data.autonomy.allow` is true for this call.
	ReasonAllowed Reason = "policy: allowed"
	// `data.autonomy.allow` is false for this call.
	ReasonDenied Reason = "policy: denied"
	// `data.autonomy.allow` has no value for this call, or one that is not a boolean.
	ReasonUndefined Reason = "policy: undefined"
	// The policy engine could not evaluate the call.
	ReasonEvaluationFailed Reason = "policy: evaluation_failed"
	// The runtime was started without a bundle, so there is no policy to ask.
	ReasonNoBundle Reason = "policy: no_bundle"
)

// Why a decision could not be recorded.
const (
	// The decision could not be written down durably, so the tool did not run.
	ReasonWALUnavailable Reason = "audit: wal_unavailable"
)

// ReasonsDigest is that of all reasons: a module that knows the same ones says the same.
const ReasonsDigest = "sha256:1bf236398edde4cac1095ab1a473306f4c4c3873777a8443ba053dd630913298"

// byNumber has each reason at its stable number.
var byNumber = [256]Reason{
	1:   ReasonBundleUnverified,
	2:   ReasonEnrollmentRefUndeclared,
	3:   ReasonNodeIDUnset,
	4:   ReasonEnrollmentUnavailable,
	5:   ReasonEnrollmentUntrusted,
	6:   ReasonEnrollmentStale,
	7:   ReasonNotEnrolled,
	8:   ReasonEnrollmentRevoked,
	9:   ReasonEnrollmentRefMismatch,
	10:  ReasonRolloutIncoherent,
	101: ReasonAllowed,
	102: ReasonDenied,
	103: ReasonUndefined,
	104: ReasonEvaluationFailed,
	105: ReasonNoBundle,
	201: ReasonWALUnavailable,
}

// Number is the reason's stable number, and 0 for what is no reason.
func (r Reason) Number() int {
	switch r {
	case ReasonBundleUnverified:
		return 1
	case ReasonEnrollmentRefUndeclared:
		return 2
	case ReasonNodeIDUnset:
		return 3
	case ReasonEnrollmentUnavailable:
		return 4
	case ReasonEnrollmentUntrusted:
		return 5
	case ReasonEnrollmentStale:
		return 6
	case ReasonNotEnrolled:
		return 7
	case ReasonEnrollmentRevoked:
		return 8
	case ReasonEnrollmentRefMismatch:
		return 9
	case ReasonRolloutIncoherent:
		return 10
	case ReasonAllowed:
		return 101
	case ReasonDenied:
		return 102
	case ReasonUndefined:
		return 103
	case ReasonEvaluationFailed:
		return 104
	case ReasonNoBundle:
		return 105
	case ReasonWALUnavailable:
		return 201
	}
	return 0
}

// Remedy is what the operator does next, in a line; empty for what is no reason.
func (r Reason) Remedy() string {
	switch r {
	case ReasonBundleUnverified:
		return "run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key"
	case ReasonEnrollmentRefUndeclared:
		return "rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`"
	case ReasonNodeIDUnset:
		return "set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime"
	case ReasonEnrollmentUnavailable:
		return "make the enrollment source reachable; the frame's `detail` says what failed"
	case ReasonEnrollmentUntrusted:
		return "check the lease keys the node trusts; a lease that is older than one already seen is refused"
	case ReasonEnrollmentStale:
		return "reconnect the node to its enrollment source, and check both clocks"
	case ReasonNotEnrolled:
		return "run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`"
	case ReasonEnrollmentRevoked:
		return "enroll the node again with `autonomy node enroll` once it may run"
	case ReasonEnrollmentRefMismatch:
		return "give the node the bundle of its enrollment, or enroll it with the bundle's ref"
	case ReasonRolloutIncoherent:
		return "finish or repeat the rollout; see `autonomy attestation status --node-id <id>`"
	case ReasonAllowed:
		return "nothing to do"
	case ReasonDenied:
		return "change the call, or the policy in the bundle"
	case ReasonUndefined:
		return "add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean"
	case ReasonEvaluationFailed:
		return "mend the policy; the frame's `detail` says where it failed"
	case ReasonNoBundle:
		return "start the runtime with a bundle that `autonomy bundle verify` accepts"
	case ReasonWALUnavailable:
		return "see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often"
	}
	return ""
}
