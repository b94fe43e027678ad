package dev.autonomygate;

import java.util.Objects;
import java.util.Optional;

/** A call that asks a {@link Guard} to run a tool. */
public final class ToolCall {
    private final String tool;
    private final Object params;
    private final PolicyAnswer policy;
    private final String auditId;

    private ToolCall(String tool, Object params, PolicyAnswer policy, String auditId) {
        this.tool = tool;
        this.params = params;
        this.policy = policy;
        this.auditId = auditId;
    }

    /**
     * A call to a tool.
     *
     * @param tool the tool's name
     * @return a call without parameters
     */
    public static ToolCall of(String tool) {
        return new ToolCall(Objects.requireNonNull(tool, "tool"), null, null, null);
    }

    /**
     * Adds the tool's parameters, for the policy.
     *
     * @param params whatever the guard's policy takes
     * @return a new call
     */
    public ToolCall withParams(Object params) {
        return new ToolCall(tool, params, policy, auditId);
    }

    /**
     * Says what the policy said, where it was asked already: the guard's own is not asked then.
     *
     * @param policy its answer
     * @return a new call
     */
    public ToolCall withPolicy(PolicyAnswer policy) {
        return new ToolCall(tool, params, Objects.requireNonNull(policy, "policy"), auditId);
    }

    /**
     * Joins the frames of the call.
     *
     * @param auditId the id; a UUID of version 7 sorts by time
     * @return a new call
     */
    public ToolCall withAuditId(String auditId) {
        return new ToolCall(tool, params, policy, Objects.requireNonNull(auditId, "auditId"));
    }

    /**
     * The tool.
     *
     * @return its name
     */
    public String tool() {
        return tool;
    }

    /**
     * The tool's parameters.
     *
     * @return empty where there are none
     */
    public Optional<Object> params() {
        return Optional.ofNullable(params);
    }

    /**
     * What the policy said.
     *
     * @return empty where it was not asked
     */
    public Optional<PolicyAnswer> policy() {
        return Optional.ofNullable(policy);
    }

    /**
     * Joins the frames of the call.
     *
     * @return empty for a new one
     */
    public Optional<String> auditId() {
        return Optional.ofNullable(auditId);
    }
}
