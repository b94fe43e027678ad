package dev.autonomygate;

/** What the caller gets. */
public enum Effect {
    /** The tool may run, once the frames of the decision are durable. */
    ALLOW,
    /** The tool may not run. */
    DENY
}
