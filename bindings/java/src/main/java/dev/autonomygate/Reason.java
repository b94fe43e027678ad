// Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.
package dev.autonomygate;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/** Every reason: its text is what the wire, the log and the metrics say, byte for byte. */
public enum Reason {
    /** No bundle is loaded, or its tar, manifest, digests or signatures do not hold. */
    BUNDLE_UNVERIFIED(
            1,
            Kind.ATTESTATION,
            "attestation: bundle_unverified",
            "run `autonomy bundle verify` on the bundle; rebuild or re-sign it with a trusted key"),

    /** The bundle's schema is below 1.2, or its manifest has no {@code provenance.enrollment_ref}. */
    ENROLLMENT_REF_UNDECLARED(
            2,
            Kind.ATTESTATION,
            "attestation: enrollment_ref_undeclared",
            "rebuild the bundle with `autonomy bundle build --enrollment-ref <ref>`"),

    /** The runtime was started without a node id. */
    NODE_ID_UNSET(
            3,
            Kind.ATTESTATION,
            "attestation: node_id_unset",
            "set `AUTONOMY_NODE_ID`, `--node-id` or `identity.node_id` and restart the runtime"),

    /** The enrollment source failed, timed out, or answered nonsense. */
    ENROLLMENT_UNAVAILABLE(
            4,
            Kind.ATTESTATION,
            "attestation: enrollment_unavailable",
            "make the enrollment source reachable; the frame's `detail` says what failed"),

    /** An enrollment lease whose signature, node id or serial does not hold. */
    ENROLLMENT_UNTRUSTED(
            5,
            Kind.ATTESTATION,
            "attestation: enrollment_untrusted",
            "check the lease keys the node trusts; a lease that is older than one already seen is refused"),

    /** The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future. */
    ENROLLMENT_STALE(
            6,
            Kind.ATTESTATION,
            "attestation: enrollment_stale",
            "reconnect the node to its enrollment source, and check both clocks"),

    /** The enrollment source answered: no such node. */
    NOT_ENROLLED(
            7,
            Kind.ATTESTATION,
            "attestation: not_enrolled",
            "run `autonomy node enroll --node-id <id> --enrollment-ref <ref>`"),

    /** The node's enrollment status is anything but {@code active}. */
    ENROLLMENT_REVOKED(
            8,
            Kind.ATTESTATION,
            "attestation: enrollment_revoked",
            "enroll the node again with `autonomy node enroll` once it may run"),

    /** The ref the node is enrolled with is not, byte for byte, the one its bundle declares. */
    ENROLLMENT_REF_MISMATCH(
            9,
            Kind.ATTESTATION,
            "attestation: enrollment_ref_mismatch",
            "give the node the bundle of its enrollment, or enroll it with the bundle's ref"),

    /** The node's rollout state is not one of {@code <none>}, {@code pending}, {@code acknowledged}, {@code active}. */
    ROLLOUT_INCOHERENT(
            10,
            Kind.ATTESTATION,
            "attestation: rollout_incoherent",
            "finish or repeat the rollout; see `autonomy attestation status --node-id <id>`"),

    /** {@code data.autonomy.allow} is true for this call. */
    ALLOWED(
            101,
            Kind.POLICY,
            "policy: allowed",
            "nothing to do"),

    /** {@code data.autonomy.allow} is false for this call. */
    DENIED(
            102,
            Kind.POLICY,
            "policy: denied",
            "change the call, or the policy in the bundle"),

    /** {@code data.autonomy.allow} has no value for this call, or one that is not a boolean. */
    UNDEFINED(
            103,
            Kind.POLICY,
            "policy: undefined",
            "add `default allow := false` to package `autonomy`, and make every `allow` rule a boolean"),

    /** The policy engine could not evaluate the call. */
    EVALUATION_FAILED(
            104,
            Kind.POLICY,
            "policy: evaluation_failed",
            "mend the policy; the frame's `detail` says where it failed"),

    /** The runtime was started without a bundle, so there is no policy to ask. */
    NO_BUNDLE(
            105,
            Kind.POLICY,
            "policy: no_bundle",
            "start the runtime with a bundle that `autonomy bundle verify` accepts"),

    /** The decision could not be written down durably, so the tool did not run. */
    WAL_UNAVAILABLE(
            201,
            Kind.AUDIT,
            "audit: wal_unavailable",
            "see the runtime's own output for why: free the disk or mend the log (`autonomy wal doctor`) and restart it, or call less often");

    /** What gives a reason. */
    public enum Kind {
        /** What the gate found wrong, in the order of the sub-checks. */
        ATTESTATION,
        /** What the policy answered. */
        POLICY,
        /** Why a decision could not be recorded. */
        AUDIT
    }

    /** Of all reasons: `reasons` of a module that knows the same ones. */
    static final String DIGEST =
            "sha256:1bf236398edde4cac1095ab1a473306f4c4c3873777a8443ba053dd630913298";

    private static final Map<Integer, Reason> BY_NUMBER = new HashMap<>();
    private static final Map<String, Reason> BY_TEXT = new HashMap<>();

    static {
        for (Reason reason : values()) {
            BY_NUMBER.put(reason.number, reason);
            BY_TEXT.put(reason.text, reason);
        }
    }

    private final int number;
    private final Kind kind;
    private final String text;
    private final String remedy;

    Reason(int number, Kind kind, String text, String remedy) {
        this.number = number;
        this.kind = kind;
        this.text = text;
        this.remedy = remedy;
    }

    /**
     * The reason of a number.
     *
     * @param number its stable number
     * @return empty where there is none
     */
    public static Optional<Reason> of(int number) {
        return Optional.ofNullable(BY_NUMBER.get(number));
    }

    /**
     * The reason of a text.
     *
     * @param text what the wire says
     * @return empty where there is none
     */
    public static Optional<Reason> of(String text) {
        return Optional.ofNullable(BY_TEXT.get(text));
    }

    /**
     * Its number.
     *
     * @return the number, stable for ever
     */
    public int number() {
        return number;
    }

    /**
     * What gives it.
     *
     * @return its kind
     */
    public Kind kind() {
        return kind;
    }

    /**
     * What the operator does next.
     *
     * @return one line
     */
    public String remedy() {
        return remedy;
    }

    /**
     * What the wire says.
     *
     * @return its text
     */
    @Override
    public String toString() {
        return text;
    }
}
