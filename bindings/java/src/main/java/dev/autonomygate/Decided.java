package dev.autonomygate;

import java.util.Optional;

/** What comes of one call of a batch: a decision, or why it was malformed. */
public final class Decided {
    private final Decision decision;
    private final GateException error;

    private Decided(Decision decision, GateException error) {
        this.decision = decision;
        this.error = error;
    }

    static Decided of(Decision decision) {
        return new Decided(decision, null);
    }

    static Decided of(GateException error) {
        return new Decided(null, error);
    }

    /**
     * The decision.
     *
     * @return it
     * @throws GateException where the call was malformed
     */
    public Decision decision() {
        if (error != null) {
            throw error;
        }
        return decision;
    }

    /**
     * Why there is no decision.
     *
     * @return empty where there is one
     */
    public Optional<GateException> error() {
        return Optional.ofNullable(error);
    }
}
