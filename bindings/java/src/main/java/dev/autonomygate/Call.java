package dev.autonomygate;

import java.util.Objects;

/** A call that asks a {@link Gate} to run a tool. A {@link Guard} takes a {@link ToolCall}. */
public final class Call {
    final String tool;
    final PolicyAnswer policy;
    final String auditId;
    final String factsLogged;
    /** {@code null}: when it is decided. */
    final Long nowMs;

    private Call(String tool, PolicyAnswer policy, String auditId, String factsLogged, Long nowMs) {
        this.tool = tool;
        this.policy = policy;
        this.auditId = auditId;
        this.factsLogged = factsLogged;
        this.nowMs = nowMs;
    }

    /**
     * A call to a tool.
     *
     * @param tool the tool's name
     * @return a call that no policy was asked about, with a new audit id, decided on now
     */
    public static Call of(String tool) {
        return new Call(Objects.requireNonNull(tool, "tool"), PolicyAnswer.ALLOWED, null, null, null);
    }

    /**
     * Says what the host's own policy said.
     *
     * @param policy its answer
     * @return a new call
     */
    public Call withPolicy(PolicyAnswer policy) {
        return new Call(tool, Objects.requireNonNull(policy, "policy"), auditId, factsLogged, nowMs);
    }

    /**
     * Joins the frames of the call.
     *
     * @param auditId the id; a UUID of version 7 sorts by time
     * @return a new call
     */
    public Call withAuditId(String auditId) {
        return new Call(tool, policy, Objects.requireNonNull(auditId, "auditId"), factsLogged, nowMs);
    }

    /**
     * Says which facts the log has.
     *
     * @param factsLogged {@link Decision#facts()} of the last decision whose frames are durable
     * @return a new call
     */
    public Call withFactsLogged(String factsLogged) {
        return new Call(tool, policy, auditId, factsLogged, nowMs);
    }

    /**
     * Sets the time.
     *
     * @param nowMs milliseconds since the Unix epoch
     * @return a new call
     */
    public Call withNowMs(long nowMs) {
        return new Call(tool, policy, auditId, factsLogged, nowMs);
    }

    /** The same call with its time and its audit id, so that deciding it again decides the same. */
    Call resolved() {
        long now = nowMs == null ? System.currentTimeMillis() : nowMs;
        return new Call(tool, policy, auditId == null ? AuditId.of(now) : auditId, factsLogged, now);
    }

    /** As {@code gate_decide} takes it. */
    String document() {
        return new JsonWriter()
                .member("now_ms", nowMs)
                .member("audit_id", auditId)
                .member("tool", tool)
                .member("policy", policy.reason().toString())
                .optional("policy_ref", policy.ref().orElse(null))
                .optional("policy_detail", policy.detail().orElse(null))
                .optional("facts_logged", factsLogged)
                .end();
    }
}
