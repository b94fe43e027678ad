package dev.autonomygate;

import java.util.Optional;

/** One sub-check, with what it expected and found. */
public final class SubCheck {
    /** How a sub-check went. */
    public enum Outcome {
        /** It holds. */
        PASS,
        /** It does not. */
        FAIL,
        /** An earlier one left nothing to look at. */
        NOT_JUDGED
    }

    private final Reason reason;
    private final Outcome outcome;
    private final String expected;
    private final String found;

    private SubCheck(Reason reason, Outcome outcome, String expected, String found) {
        this.reason = reason;
        this.outcome = outcome;
        this.expected = expected;
        this.found = found;
    }

    static SubCheck read(JsonReader in) {
        Reason reason = null;
        Outcome outcome = null;
        String expected = null;
        String found = null;
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "reason":
                    reason = Verdict.parse(in.string()).reason().orElseThrow();
                    break;
                case "outcome":
                    outcome = outcome(in.string());
                    break;
                case "expected":
                    expected = in.string();
                    break;
                case "found":
                    found = in.stringOrNull();
                    break;
                default:
                    in.skip();
            }
        }
        return new SubCheck(reason, outcome, expected, found);
    }

    private static Outcome outcome(String text) {
        switch (text) {
            case "pass":
                return Outcome.PASS;
            case "fail":
                return Outcome.FAIL;
            case "not_judged":
                return Outcome.NOT_JUDGED;
            default:
                throw new IllegalStateException("`" + text + "` is no outcome of a sub-check");
        }
    }

    /**
     * With which reason it fails.
     *
     * @return the reason
     */
    public Reason reason() {
        return reason;
    }

    /**
     * How it went.
     *
     * @return the outcome
     */
    public Outcome outcome() {
        return outcome;
    }

    /**
     * What it wants.
     *
     * @return a few words
     */
    public String expected() {
        return expected;
    }

    /**
     * What there is.
     *
     * @return a few words; empty where there was nothing to look at
     */
    public Optional<String> found() {
        return Optional.ofNullable(found);
    }

    @Override
    public String toString() {
        return outcome + " " + reason + ": expected " + expected + ", found " + found;
    }
}
