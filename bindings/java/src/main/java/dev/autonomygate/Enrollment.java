package dev.autonomygate;

import java.util.Objects;

/** A node's row at an enrollment source. Status and rollout state are texts: the gate denies those that it does not know. */
public final class Enrollment {
    private final String nodeId;
    private final String enrollmentRef;
    private final String status;
    private final String rolloutState;
    private final long serial;

    private Enrollment(String nodeId, String enrollmentRef, String status, String rolloutState, long serial) {
        this.nodeId = nodeId;
        this.enrollmentRef = enrollmentRef;
        this.status = Objects.requireNonNull(status, "status");
        this.rolloutState = Objects.requireNonNull(rolloutState, "rolloutState");
        this.serial = serial;
    }

    /**
     * An active enrollment without a rollout.
     *
     * @param nodeId which node
     * @param enrollmentRef what it is enrolled with
     * @return the row, with serial 1
     */
    public static Enrollment of(String nodeId, String enrollmentRef) {
        Objects.requireNonNull(nodeId, "nodeId");
        Objects.requireNonNull(enrollmentRef, "enrollmentRef");
        return new Enrollment(nodeId, enrollmentRef, "active", "<none>", 1);
    }

    /**
     * With another status.
     *
     * @param status {@code active} or {@code revoked}
     * @return a new row
     */
    public Enrollment withStatus(String status) {
        return new Enrollment(nodeId, enrollmentRef, status, rolloutState, serial);
    }

    /**
     * With another rollout state.
     *
     * @param rolloutState {@code <none>} where there is no rollout
     * @return a new row
     */
    public Enrollment withRolloutState(String rolloutState) {
        return new Enrollment(nodeId, enrollmentRef, status, rolloutState, serial);
    }

    /**
     * With another serial.
     *
     * @param serial from 0 to 2^64 - 1: the bits of the {@code long}, as {@link Long#toUnsignedString(long)} reads them
     * @return a new row
     */
    public Enrollment withSerial(long serial) {
        return new Enrollment(nodeId, enrollmentRef, status, rolloutState, serial);
    }

    /**
     * Which node.
     *
     * @return its id
     */
    public String nodeId() {
        return nodeId;
    }

    /**
     * What grows with each change of the row.
     *
     * @return from 0 to 2^64 - 1, in the bits of the {@code long}
     */
    public long serial() {
        return serial;
    }

    String document() {
        return new JsonWriter()
                .member("node_id", nodeId)
                .member("enrollment_ref", enrollmentRef)
                .member("status", status)
                .member("rollout_state", rolloutState)
                .raw("serial", Long.toUnsignedString(serial))
                .end();
    }
}
