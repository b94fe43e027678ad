/**
 * Decides whether an AI agent or robot may run a tool now: whether its node is enrolled, its rollout healthy, and its
 * enrollment the one that its signed bundle declares.
 *
 * <p>{@link dev.autonomygate.Gate} decides and does no I/O. {@link dev.autonomygate.Guard} is what stands before a tool:
 * it looks up the enrollment, asks the gate, and has the decision written down durably. {@link
 * dev.autonomygate.NativeHost} is who answers and who writes, on the same node.
 */
package dev.autonomygate;
