package dev.autonomygate;

import java.nio.charset.StandardCharsets;
import java.util.Objects;

/**
 * What an enrollment source answered about a node. It is passed on to the gate as the text that it is, which alone judges it:
 * one that is malformed is as good as none.
 */
public final class Answer {
    /** {@code null} for a lease. */
    final String json;
    /** {@code null} for an answer. */
    final byte[] lease;

    private Answer(String json, byte[] lease) {
        this.json = json;
        this.lease = lease;
    }

    /**
     * An answer as the source gave it: what the native host answers, byte for byte.
     *
     * @param json the text of a JSON object
     * @return the answer
     */
    public static Answer json(String json) {
        return new Answer(Objects.requireNonNull(json, "json"), null);
    }

    /**
     * An enrollment answer that was signed.
     *
     * @param envelope the DSSE envelope's own bytes
     * @return the answer
     */
    public static Answer lease(byte[] envelope) {
        return new Answer(null, envelope.clone());
    }

    /**
     * An enrollment answer that was signed.
     *
     * @param envelope the DSSE envelope's own text
     * @return the answer
     */
    public static Answer lease(String envelope) {
        return new Answer(null, envelope.getBytes(StandardCharsets.UTF_8));
    }

    /**
     * The node is enrolled.
     *
     * @param enrollment its row
     * @param observedAtMs when the source said so, in milliseconds since the Unix epoch
     * @return the answer
     */
    public static Answer enrolled(Enrollment enrollment, long observedAtMs) {
        return json(new JsonWriter()
                .member("answer", "enrolled")
                .raw("enrollment", enrollment.document())
                .member("observed_at_ms", observedAtMs)
                .end());
    }

    /**
     * There is no such node.
     *
     * @param observedAtMs when the source said so, in milliseconds since the Unix epoch
     * @return the answer
     */
    public static Answer notEnrolled(long observedAtMs) {
        return json(new JsonWriter().member("answer", "not_enrolled").member("observed_at_ms", observedAtMs).end());
    }

    /**
     * The source could not be asked.
     *
     * @param why what failed, for the operator
     * @return the answer
     */
    public static Answer unavailable(String why) {
        return json(new JsonWriter().member("answer", "unavailable").member("why", why).end());
    }

    @Override
    public String toString() {
        return json == null ? "a lease of " + lease.length + " bytes" : json;
    }
}
