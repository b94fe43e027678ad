package dev.autonomygate;

import java.util.Optional;

/** What the gate found, the same in every mode: a pass, or the reason of the first sub-check that fails. */
public final class Verdict {
    /** Every sub-check passes. */
    public static final Verdict PASS = new Verdict(null);

    private final Reason reason;

    private Verdict(Reason reason) {
        this.reason = reason;
    }

    static Verdict of(Reason reason) {
        return new Verdict(reason);
    }

    /** As the documents of the module have it. */
    static Verdict parse(String text) {
        return text.equals("pass") ? PASS : of(Reason.of(text).orElseThrow(() -> new IllegalStateException("`" + text + "` is no verdict")));
    }

    /**
     * Whether every sub-check passes.
     *
     * @return whether there is no reason
     */
    public boolean isPass() {
        return reason == null;
    }

    /**
     * What fails.
     *
     * @return empty for a pass
     */
    public Optional<Reason> reason() {
        return Optional.ofNullable(reason);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Verdict && ((Verdict) other).reason == reason;
    }

    @Override
    public int hashCode() {
        return reason == null ? 0 : reason.hashCode();
    }

    /**
     * Its text.
     *
     * @return {@code pass}, or the reason's
     */
    @Override
    public String toString() {
        return reason == null ? "pass" : reason.toString();
    }
}
