package dev.autonomygate;

import java.util.Locale;

/** How a tool went. */
public enum Outcome {
    /** It did what it was asked to. */
    COMPLETED,
    /** It ran, and did not. */
    FAILED,
    /** The call was given up before the tool said how it went. */
    ABANDONED;

    private final String text = name().toLowerCase(Locale.ROOT);

    /**
     * Its text.
     *
     * @return as the log has it
     */
    @Override
    public String toString() {
        return text;
    }
}
