package dev.autonomygate;

/** The host's own policy. A {@link Guard} calls it from any number of threads. */
@FunctionalInterface
public interface Policy {
    /**
     * Whether the call may be made. One that throws is {@link Reason#EVALUATION_FAILED}, one that gives {@code null} is
     * {@link Reason#UNDEFINED}: both deny.
     *
     * @param call the tool and its parameters
     * @return the answer
     * @throws Exception where it cannot be evaluated
     */
    PolicyAnswer ask(ToolCall call) throws Exception;
}
