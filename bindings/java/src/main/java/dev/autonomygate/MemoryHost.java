package dev.autonomygate;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** A host in memory, for tests and first steps: nothing it takes is durable. Threads may share it. */
public final class MemoryHost implements EnrollmentSource, DecisionSink {
    private final Map<String, Enrollment> rows = new ConcurrentHashMap<>();
    private final List<Frame> frames = Collections.synchronizedList(new ArrayList<>());
    private volatile Exception fault;

    /** A host that knows no node. */
    public MemoryHost() {}

    /**
     * Enrolls a node, or changes its row.
     *
     * @param enrollment the row; its serial is the host's own
     */
    public void enroll(Enrollment enrollment) {
        rows.merge(enrollment.nodeId(), enrollment.withSerial(1), (was, is) -> enrollment.withSerial(was.serial() + 1));
    }

    /**
     * Revokes a node: its next call is denied.
     *
     * @param nodeId which node
     */
    public void revoke(String nodeId) {
        rows.computeIfPresent(nodeId, (id, row) -> row.withStatus("revoked").withSerial(row.serial() + 1));
    }

    /**
     * Makes look-ups and appends fail.
     *
     * @param fault what they throw; {@code null} for nothing any more
     */
    public void fail(Exception fault) {
        this.fault = fault;
    }

    /**
     * What was appended.
     *
     * @return the frames in their order, as they are now
     */
    public List<Frame> frames() {
        return List.copyOf(frames);
    }

    @Override
    public Answer lookUp(String nodeId) throws Exception {
        failIfTold();
        Enrollment row = rows.get(nodeId);
        long nowMs = System.currentTimeMillis();
        return row == null ? Answer.notEnrolled(nowMs) : Answer.enrolled(row, nowMs);
    }

    @Override
    public void append(Frames batch) throws Exception {
        failIfTold();
        frames.addAll(batch.list());
    }

    private void failIfTold() throws Exception {
        Exception now = fault;
        if (now != null) {
            throw now;
        }
    }
}
