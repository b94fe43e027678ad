package dev.autonomygate;

import java.util.Optional;

/** What the host's own policy says of a call. */
public final class PolicyAnswer {
    /** The call may be made, as far as the policy goes. */
    public static final PolicyAnswer ALLOWED = new PolicyAnswer(Reason.ALLOWED, null, null);

    private final Reason reason;
    private final String ref;
    private final String detail;

    private PolicyAnswer(Reason reason, String ref, String detail) {
        this.reason = reason;
        this.ref = ref;
        this.detail = detail;
    }

    /**
     * An answer.
     *
     * @param reason one of a policy; {@link Reason#ALLOWED} alone allows
     * @return the answer
     * @throws GateException where the reason is none of a policy
     */
    public static PolicyAnswer of(Reason reason) {
        if (reason.kind() != Reason.Kind.POLICY) {
            throw GateException.malformed("`" + reason + "` is no answer of a policy: use a reason that begins with `policy:`");
        }
        return new PolicyAnswer(reason, null, null);
    }

    /**
     * Says which policies answered.
     *
     * @param ref the policy ref, as {@link Bundle#policyRef()}
     * @return a new answer
     */
    public PolicyAnswer withRef(String ref) {
        return new PolicyAnswer(reason, ref, detail);
    }

    /**
     * Says what the operator should know. It is written down; the caller never sees it.
     *
     * @param detail free text
     * @return a new answer
     */
    public PolicyAnswer withDetail(String detail) {
        return new PolicyAnswer(reason, ref, detail);
    }

    /**
     * What was answered.
     *
     * @return the reason
     */
    public Reason reason() {
        return reason;
    }

    /**
     * Which policies answered.
     *
     * @return empty where it was not said
     */
    public Optional<String> ref() {
        return Optional.ofNullable(ref);
    }

    /**
     * What the operator should know.
     *
     * @return empty where it was not said
     */
    public Optional<String> detail() {
        return Optional.ofNullable(detail);
    }

    @Override
    public String toString() {
        return reason.toString();
    }
}
