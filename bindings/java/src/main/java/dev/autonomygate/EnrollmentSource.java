package dev.autonomygate;

/** Who says whether a node is enrolled. A {@link Guard} calls it from any number of threads. */
@FunctionalInterface
public interface EnrollmentSource {
    /**
     * What is known of the node now. One that throws, takes too long (the guard then interrupts it) or answers nonsense has
     * not answered: the call is denied with {@link Reason#ENROLLMENT_UNAVAILABLE}.
     *
     * @param nodeId which node
     * @return the answer
     * @throws Exception where the source cannot be asked
     */
    Answer lookUp(String nodeId) throws Exception;
}
