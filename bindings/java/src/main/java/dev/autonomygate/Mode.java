package dev.autonomygate;

import java.util.Locale;

/** How far the gate is turned on. */
public enum Mode {
    /** The gate is not asked; what it was told is written down all the same. */
    OFF,
    /** Nothing is denied by the gate; what it would deny is written down. */
    ADVISORY,
    /** What the gate does not pass is denied. */
    ENFORCE;

    private final String text = name().toLowerCase(Locale.ROOT);

    /**
     * The mode of a text, as a setting has it.
     *
     * @param text exactly {@code off}, {@code advisory} or {@code enforce}
     * @return the mode
     * @throws GateException where it is anything else
     */
    public static Mode parse(String text) {
        for (Mode mode : values()) {
            if (mode.text.equals(text)) {
                return mode;
            }
        }
        throw GateException.malformed("`" + text + "` is no mode: use `off`, `advisory` or `enforce`");
    }

    /**
     * Its text.
     *
     * @return as the configuration has it
     */
    @Override
    public String toString() {
        return text;
    }
}
