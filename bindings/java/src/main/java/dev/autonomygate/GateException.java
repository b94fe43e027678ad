package dev.autonomygate;

/** An error of the gate or its configuration, in one line: what was wrong, with which value, what to do. */
public final class GateException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** What kind of thing was wrong. */
    public enum Kind {
        /** The input is not what the call takes. */
        MALFORMED,
        /** The input was read and does not hold: a bundle, a lease, a file that others can read. */
        REFUSED,
        /** The module or the address is none that this package works with. */
        UNSUPPORTED,
        /** The module trapped. The next call is answered by a new instance. */
        TRAPPED
    }

    private static final int LINE = 300;

    /** What kind of thing was wrong. */
    private final Kind kind;

    GateException(Kind kind, String message, Throwable cause) {
        super(message, cause);
        this.kind = kind;
    }

    static GateException malformed(String message) {
        return new GateException(Kind.MALFORMED, message, null);
    }

    static GateException refused(String message) {
        return new GateException(Kind.REFUSED, message, null);
    }

    static GateException unsupported(String message) {
        return new GateException(Kind.UNSUPPORTED, message, null);
    }

    static GateException trapped(String doing, Throwable trap) {
        return new GateException(Kind.TRAPPED, "the gate trapped while " + doing + ": " + line(trap), trap);
    }

    /** Somebody else's error as one line, whose own code may fail. */
    static String line(Throwable error) {
        String message;
        try {
            message = error.getMessage();
        } catch (RuntimeException | Error e) {
            message = null;
        }
        String said = message == null || message.isBlank() ? error.getClass().getSimpleName() : message;
        String line = said.strip().replaceAll("\\s+", " ");
        return line.length() <= LINE ? line : line.substring(0, LINE);
    }

    /**
     * What kind of thing was wrong.
     *
     * @return the kind
     */
    public Kind kind() {
        return kind;
    }
}
