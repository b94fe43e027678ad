package dev.autonomygate;

import java.util.Optional;

/** A call that may not run. What it says to the caller is {@link #json()}; what was found stays in the log. */
public final class DeniedException extends Exception {
    private static final long serialVersionUID = 1L;
    private static final int FORBIDDEN = 403;
    private static final int SERVICE_UNAVAILABLE = 503;

    /** Why it is denied. */
    private final Reason reason;
    /** Joins the frames of the call. */
    private final String auditId;
    /** Which policies answered, or {@code null}. */
    private final String policyRef;

    DeniedException(Reason reason, String auditId, String policyRef, Throwable cause) {
        super("the call is denied: " + reason, cause);
        this.reason = reason;
        this.auditId = auditId;
        this.policyRef = policyRef;
    }

    /**
     * Why.
     *
     * @return the reason
     */
    public Reason reason() {
        return reason;
    }

    /**
     * What the operator does about it.
     *
     * @return one line
     */
    public String remedy() {
        return reason.remedy();
    }

    /**
     * The status of an HTTP answer.
     *
     * @return 403, or 503 where the decision could not be written down
     */
    public int status() {
        return reason == Reason.WAL_UNAVAILABLE ? SERVICE_UNAVAILABLE : FORBIDDEN;
    }

    /**
     * Joins the frames of the call.
     *
     * @return the audit id
     */
    public String auditId() {
        return auditId;
    }

    /**
     * Which policies answered.
     *
     * @return empty where it was not said
     */
    public Optional<String> policyRef() {
        return Optional.ofNullable(policyRef);
    }

    /**
     * The body of an HTTP answer.
     *
     * @return the text of a JSON object
     */
    public String json() {
        return new JsonWriter()
                .member("decision", "deny")
                .member("reason", reason.toString())
                .member("policy_ref", policyRef)
                .member("audit_id", auditId)
                .end();
    }
}
