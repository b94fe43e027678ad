# Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.
"""Every reason: what the wire, the log and the metrics say, byte for byte."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal


class Reason(str, Enum):
    """A reason. It is a string: its text."""

    BUNDLE_UNVERIFIED = "attestation: bundle_unverified"
    """No bundle is loaded, or its tar, manifest, digests or signatures do not hold."""
    ENROLLMENT_REF_UNDECLARED = "attestation: enrollment_ref_undeclared"
    """The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`."""
    NODE_ID_UNSET = "attestation: node_id_unset"
    """The runtime was started without a node id."""
    ENROLLMENT_UNAVAILABLE = "attestation: enrollment_unavailable"
    """The enrollment source failed, timed out, or answered nonsense."""
    ENROLLMENT_UNTRUSTED = "attestation: enrollment_untrusted"
    """An enrollment lease whose signature, node id or serial does not hold."""
    ENROLLMENT_STALE = "attestation: enrollment_stale"
    """The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future."""
    NOT_ENROLLED = "attestation: not_enrolled"
    """The enrollment source answered: no such node."""
    ENROLLMENT_REVOKED = "attestation: enrollment_revoked"
    """The node's enrollment status is anything but `active`."""
    ENROLLMENT_REF_MISMATCH = "attestation: enrollment_ref_mismatch"
    """The ref the node is enrolled with is not, byte for byte, the one its bundle declares."""
    ROLLOUT_INCOHERENT = "attestation: rollout_incoherent"
    """The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`."""
    ALLOWED = "policy: allowed"
    """`data.autonomy.allow` is true for this call."""
    DENIED = "policy: denied"
    """`data.autonomy.allow` is false for this call."""
    UNDEFINED = "policy: undefined"
    """`data.autonomy.allow` has no value for this call, or one that is not a boolean."""
    EVALUATION_FAILED = "policy: evaluation_failed"
    """The policy engine could not evaluate the call."""
    NO_BUNDLE = "policy: no_bundle"
    """The runtime was started without a bundle, so there is no policy to ask."""
    WAL_UNAVAILABLE = "audit: wal_unavailable"
    """The decision could not be written down durably, so the tool did not run."""

    def __str__(self) -> str:
        return self.value

    @property
    def number(self) -> int:
        """The stable number."""
        return _NUMBERS[self]

    @property
    def remedy(self) -> str:
        """What the operator does next, in a line."""
        return _REMEDIES[self]


AttestationReason = Literal[
    Reason.BUNDLE_UNVERIFIED,
    Reason.ENROLLMENT_REF_UNDECLARED,
    Reason.NODE_ID_UNSET,
    Reason.ENROLLMENT_UNAVAILABLE,
    Reason.ENROLLMENT_UNTRUSTED,
    Reason.ENROLLMENT_STALE,
    Reason.NOT_ENROLLED,
    Reason.ENROLLMENT_REVOKED,
    Reason.ENROLLMENT_REF_MISMATCH,
    Reason.ROLLOUT_INCOHERENT,
]
"""What the gate found wrong, in the order of the sub-checks."""

PolicyReason = Literal[
    Reason.ALLOWED,
    Reason.DENIED,
    Reason.UNDEFINED,
    Reason.EVALUATION_FAILED,
    Reason.NO_BUNDLE,
]
"""What the policy answered."""

AuditReason = Literal[Reason.WAL_UNAVAILABLE]
"""Why a decision could not be recorded."""

_NUMBERS: Final[dict[Reason, int]] = {
    Reason.BUNDLE_UNVERIFIED: 1,
    Reason.ENROLLMENT_REF_UNDECLARED: 2,
    Reason.NODE_ID_UNSET: 3,
    Reason.ENROLLMENT_UNAVAILABLE: 4,
    Reason.ENROLLMENT_UNTRUSTED: 5,
    Reason.ENROLLMENT_STALE: 6,
    Reason.NOT_ENROLLED: 7,
    Reason.ENROLLMENT_REVOKED: 8,
    Reason.ENROLLMENT_REF_MISMATCH: 9,
    Reason.ROLLOUT_INCOHERENT: 10,
    Reason.ALLOWED: 101,
    Reason.DENIED: 102,
    Reason.UNDEFINED: 103,
    Reason.EVALUATION_FAILED: 104,
    Reason.NO_BUNDLE: 105,
    Reason.WAL_UNAVAILABLE: 201,
}

_REMEDIES: Final[dict[Reason, str]] = {
    Reason.BUNDLE_UNVERIFIED: "run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key",
    Reason.ENROLLMENT_REF_UNDECLARED: "rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`",
    Reason.NODE_ID_UNSET: "set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime",
    Reason.ENROLLMENT_UNAVAILABLE: "make the enrollment source reachable; the frame's `detail` says what failed",
    Reason.ENROLLMENT_UNTRUSTED: "check the lease keys the node trusts; a lease that is older than one already seen is refused",
    Reason.ENROLLMENT_STALE: "reconnect the node to its enrollment source, and check both clocks",
    Reason.NOT_ENROLLED: "run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`",
    Reason.ENROLLMENT_REVOKED: "enroll the node again with `autonomy node enroll` once it may run",
    Reason.ENROLLMENT_REF_MISMATCH: "give the node the bundle of its enrollment, or enroll it with the bundle's ref",
    Reason.ROLLOUT_INCOHERENT: "finish or repeat the rollout; see `autonomy attestation status --node-id <id>`",
    Reason.ALLOWED: "nothing to do",
    Reason.DENIED: "change the call, or the policy in the bundle",
    Reason.UNDEFINED: "add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean",
    Reason.EVALUATION_FAILED: "mend the policy; the frame's `detail` says where it failed",
    Reason.NO_BUNDLE: "start the runtime with a bundle that `autonomy bundle verify` accepts",
    Reason.WAL_UNAVAILABLE: "see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often",
}

REASONS: Final[dict[int, Reason]] = {number: reason for reason, number in _NUMBERS.items()}
"""The reason of a number."""

REASONS_DIGEST: Final = "sha256:1bf236398edde4cac1095ab1a473306f4c4c3873777a8443ba053dd630913298"
"""Of all reasons: `reasons` of a module that knows the same ones."""
