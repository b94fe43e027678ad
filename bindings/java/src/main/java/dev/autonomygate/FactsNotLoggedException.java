package dev.autonomygate;

/** The log does not have the facts that a batch names: the batch is made again, with them. */
public final class FactsNotLoggedException extends Exception {
    private static final long serialVersionUID = 1L;

    /**
     * Says that nothing of the batch was taken.
     *
     * @param message what the log said
     */
    public FactsNotLoggedException(String message) {
        super(message);
    }
}
