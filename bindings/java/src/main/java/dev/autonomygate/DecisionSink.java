package dev.autonomygate;

/** Where decisions are written down. A {@link Guard} calls it from any number of threads. */
@FunctionalInterface
public interface DecisionSink {
    /**
     * Appends the frames as one batch, and returns when they are durable. Whatever it throws but {@link
     * FactsNotLoggedException}, and taking too long (the guard then interrupts it), denies the call with {@link
     * Reason#WAL_UNAVAILABLE}. It must not try again: the frames may be in the log.
     *
     * @param frames what is appended, as {@link Frames#json()}
     * @throws FactsNotLoggedException where the log does not have the facts that they name, and took nothing
     * @throws Exception where they may not be durable
     */
    void append(Frames frames) throws Exception;
}
