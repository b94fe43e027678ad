package dev.autonomygate;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The right to run one tool once. The decision behind it is durable.
 *
 * <pre>{@code
 * try (Permit permit = guard.ask("arm.move")) {
 *     move();
 *     permit.finish(Outcome.COMPLETED);
 * } // closed without: abandoned
 * }</pre>
 */
public final class Permit implements AutoCloseable {
    /** Writes the action frame. */
    interface Writer {
        CompletableFuture<Void> write(Outcome outcome, long tookMs);
    }

    private final String auditId;
    private final Writer writer;
    private final long startedNs = System.nanoTime();
    private final AtomicReference<CompletableFuture<Void>> finished = new AtomicReference<>();

    Permit(String auditId, Writer writer) {
        this.auditId = auditId;
        this.writer = writer;
    }

    /**
     * Joins the frames of the call.
     *
     * @return the audit id
     */
    public String auditId() {
        return auditId;
    }

    /**
     * Writes down how the tool went; the first one counts.
     *
     * @param outcome how it went
     * @return when that was tried: it never fails, and nobody needs to wait for it, for what counted was the decision
     */
    public CompletableFuture<Void> finish(Outcome outcome) {
        CompletableFuture<Void> mine = new CompletableFuture<>();
        if (!finished.compareAndSet(null, mine)) {
            return finished.get().copy();
        }
        long tookMs = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - startedNs);
        writer.write(outcome, tookMs).whenComplete((done, ignored) -> mine.complete(null));
        return mine.copy();
    }

    /** What was not finished was abandoned. */
    @Override
    public void close() {
        finish(Outcome.ABANDONED);
    }
}
