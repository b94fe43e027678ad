package dev.autonomygate;

import com.dylibso.chicory.runtime.ChicoryInterruptedException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * One node's gate: told who it is, which bundle runs and what its enrollment source answered, it decides. Any number of
 * threads may share it: it is one instance of the module behind one lock, which a decision holds for a few microseconds; the
 * durable append that follows each decision takes a hundred times longer and is not under it.
 *
 * <p>It does no I/O and reads no clock but {@link System#currentTimeMillis()}. A {@link Guard} looks up the enrollment before
 * and has what comes of it written down after.
 */
public final class Gate implements AutoCloseable {
    /** What the module takes in one call. */
    private static final int BATCH_CALLS = 1024;

    private final String nodeId;
    private final Mode mode;
    private final Duration maxStaleness;
    /** The same as the gate counts it. */
    final long maxStalenessMs;
    private final Engine.Factory engines;
    private final String configuration;
    private final Lock lock = new ReentrantLock();
    /** {@code null} after a trap: the next call makes a new one. */
    private Engine engine;
    private Bundle bundle;
    private boolean closed;
    /** What the instance was told, to tell it to the next one. */
    private byte[] toldBundle;
    /** The last lease that was taken: it raises the serial below which others are refused. */
    private Answer toldLease;
    private Answer toldEnrollment;

    private Gate(Builder builder, Engine.Factory engines) {
        nodeId = builder.nodeId;
        mode = builder.mode;
        maxStaleness = builder.maxStaleness;
        maxStalenessMs = TimeUnit.MILLISECONDS.convert(maxStaleness);
        this.engines = engines;
        configuration = builder.document();
        String reasons = locked(() -> current().info().reasons());
        if (!reasons.equals(Reason.DIGEST)) {
            throw GateException.unsupported("the module's reasons are `" + reasons + "`, this package's are `" + Reason.DIGEST
                    + "`: use the gate.wasm that comes with it");
        }
        if (builder.bundle != null) {
            loadBundle(builder.bundle);
        }
    }

    /**
     * Begins to load a gate.
     *
     * @return a builder of a gate that is {@code off}, knows no bundle and has no node id
     */
    public static Builder builder() {
        return new Builder();
    }

    /**
     * Makes a tar the active bundle.
     *
     * @param tar its bytes
     * @return what it says
     * @throws GateException where it is refused: the bundle that was active stays so
     */
    public Bundle loadBundle(byte[] tar) {
        // A copy: the caller's bytes may change, and the next instance must be told the same.
        byte[] bytes = tar.clone();
        return locked(() -> {
            try {
                bundle = guarded("it read the bundle", engine -> engine.loadBundle(bytes));
            } catch (GateException refused) {
                // The facts say why there is none.
                if (bundle == null && refused.kind() != GateException.Kind.TRAPPED) {
                    toldBundle = bytes;
                }
                throw refused;
            }
            toldBundle = bytes;
            return bundle;
        });
    }

    /**
     * Tells what the source answered about this node.
     *
     * @param given what it answered
     * @throws GateException where it is malformed or does not hold: the enrollment is then unavailable or untrusted, and
     *     denies
     */
    public void setEnrollment(Answer given) {
        // No answer at all takes the place of the one before as well.
        Answer answer = given == null ? Answer.json("null") : given;
        locked(() -> {
            toldEnrollment = answer;
            guarded("it read the answer", engine -> {
                engine.tell(answer);
                return answer;
            });
            if (answer.lease != null) {
                toldLease = answer;
            }
            return answer;
        });
    }

    /**
     * What the gate finds now.
     *
     * @return the verdict
     */
    public Verdict verdict() {
        return verdict(System.currentTimeMillis());
    }

    /**
     * What the gate finds at a time. It looks at no mode and writes nothing down: a call is decided by {@link #decide}.
     *
     * @param nowMs milliseconds since the Unix epoch
     * @return the verdict
     */
    public Verdict verdict(long nowMs) {
        return locked(() -> {
            int number;
            try {
                number = current().verdict(nowMs);
            } catch (ChicoryInterruptedException stopped) {
                throw stopped;
            } catch (RuntimeException | Error trap) {
                engine = null;
                return Verdict.of(Reason.ENROLLMENT_UNAVAILABLE);
            }
            if (number < 0) {
                throw GateException.malformed("`" + nowMs + "` is not a time: give milliseconds since the Unix epoch");
            }
            return number == 0 ? Verdict.PASS : Verdict.of(Reason.of(number).orElseThrow());
        });
    }

    /**
     * Decides a call that no policy was asked about, now.
     *
     * @param tool the tool's name
     * @return the decision
     * @throws GateException where the name is none
     */
    public Decision decide(String tool) {
        return decide(Call.of(tool));
    }

    /**
     * Decides a call. Append its frames, wait until they are durable, and only then run the tool or answer the denial.
     *
     * <p>A call on which the module traps is denied: a new instance decides it, told that the enrollment is unavailable; where
     * that one traps as well or would let the call through, there are no frames and the reason is {@link
     * Reason#WAL_UNAVAILABLE}.
     *
     * @param call the call
     * @return the decision
     * @throws GateException where the call is malformed
     */
    public Decision decide(Call call) {
        Call resolved = call.resolved();
        return locked(() -> decideOne(resolved));
    }

    /**
     * Decides many calls as {@link #decide(Call)} would.
     *
     * @param calls the calls
     * @return a decision for each, in their order; why there is none for one that is malformed
     */
    public List<Decided> decideBatch(List<Call> calls) {
        List<Decided> decided = new ArrayList<>(calls.size());
        for (int at = 0; at < calls.size(); at += BATCH_CALLS) {
            List<Call> some = new ArrayList<>(BATCH_CALLS);
            calls.subList(at, Math.min(at + BATCH_CALLS, calls.size())).forEach(call -> some.add(call.resolved()));
            decided.addAll(locked(() -> decideSome(some)));
        }
        return decided;
    }

    /**
     * Every sub-check now.
     *
     * @return what each expected and found
     */
    public Explanation explain() {
        return explain(System.currentTimeMillis());
    }

    /**
     * Every sub-check at a time. It writes nothing down.
     *
     * @param nowMs milliseconds since the Unix epoch
     * @return what each expected and found
     */
    public Explanation explain(long nowMs) {
        return locked(() -> guarded("it explained", engine -> engine.explain(nowMs)));
    }

    /**
     * What the module is.
     *
     * @return its version and its limits
     */
    public Info info() {
        return locked(() -> guarded("it said what it is", Engine::info));
    }

    /**
     * How much memory the module holds.
     *
     * @return a count of bytes
     */
    public long memoryBytes() {
        return locked(() -> current().memoryBytes());
    }

    /**
     * The active bundle.
     *
     * @return empty where there is none
     */
    public Optional<Bundle> bundle() {
        return Optional.ofNullable(locked(() -> bundle));
    }

    /**
     * Which node this is.
     *
     * @return empty where it was not said
     */
    public Optional<String> nodeId() {
        return Optional.ofNullable(nodeId);
    }

    /**
     * How far the gate is turned on.
     *
     * @return the mode
     */
    public Mode mode() {
        return mode;
    }

    /**
     * How long an answer counts.
     *
     * @return the time after it was observed
     */
    public Duration maxStaleness() {
        return maxStaleness;
    }

    /** Drops the module's memory. Every later call throws: there are no permits of a closed gate. */
    @Override
    public void close() {
        lock.lock();
        try {
            closed = true;
            engine = null;
            toldBundle = null;
        } finally {
            lock.unlock();
        }
    }

    private Decision decideOne(Call call) {
        try {
            return current().decide(call);
        } catch (GateException | ChicoryInterruptedException e) {
            throw e;
        } catch (RuntimeException | Error trap) {
            engine = null;
            return uninterrupted(() -> decideTrapped(call, trap));
        }
    }

    /** The same call by a new instance, so that the denial is written down. */
    private Decision decideTrapped(Call call, Throwable trap) {
        try {
            Engine renewed = renew();
            renewed.tell(Answer.unavailable("the gate trapped: " + GateException.line(trap)));
            Decision decision = renewed.decide(call);
            tellEnrollment(renewed);
            // A mode that lets it through must not let a call run on which the module trapped.
            return decision.effect() == Effect.DENY ? decision : Decision.unrecordable(call.auditId);
        } catch (ChicoryInterruptedException stopped) {
            throw stopped;
        } catch (RuntimeException | Error again) {
            engine = null;
            return Decision.unrecordable(call.auditId);
        }
    }

    private List<Decided> decideSome(List<Call> calls) {
        try {
            return current().decideBatch(calls);
        } catch (GateException | ChicoryInterruptedException e) {
            throw e;
        } catch (RuntimeException | Error trap) {
            // One of them is to blame: alone, each is answered for itself.
            engine = null;
            List<Decided> decided = new ArrayList<>(calls.size());
            for (Call call : calls) {
                try {
                    decided.add(Decided.of(uninterrupted(() -> decideOne(call))));
                } catch (GateException malformed) {
                    decided.add(Decided.of(malformed));
                }
            }
            return decided;
        }
    }

    /** The instance, or a new one where the old one was lost. */
    private Engine current() {
        return engine == null ? renew() : engine;
    }

    private <T> T guarded(String doing, Function<Engine, T> call) {
        try {
            return call.apply(current());
        } catch (GateException | ChicoryInterruptedException e) {
            throw e;
        } catch (RuntimeException | Error trap) {
            engine = null;
            throw GateException.trapped(doing, trap);
        }
    }

    /** Tells a new instance all that the old one was told. */
    private Engine renew() {
        Engine renewed = engines.create(configuration);
        if (toldBundle != null) {
            toldAgain(() -> renewed.loadBundle(toldBundle));
        }
        if (toldLease != null) {
            toldAgain(() -> renewed.tell(toldLease));
        }
        tellEnrollment(renewed);
        engine = renewed;
        return renewed;
    }

    private void tellEnrollment(Engine engine) {
        if (toldEnrollment != null) {
            toldAgain(() -> engine.tell(toldEnrollment));
        }
    }

    /** What was refused before is refused again, and leaves the same facts. */
    private static void toldAgain(Runnable tell) {
        try {
            tell.run();
        } catch (GateException refused) {
            if (refused.kind() == GateException.Kind.TRAPPED) {
                throw refused;
            }
        }
    }

    /** One call at a time. An interrupt from before it waits until it is over. */
    private <T> T locked(Supplier<T> call) {
        lock.lock();
        boolean interrupted = Thread.interrupted();
        try {
            if (closed) {
                throw new IllegalStateException("the gate is closed: load a new one");
            }
            return uninterrupted(call);
        } finally {
            lock.unlock();
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    /**
     * An interrupt stops the module in its midst. That is no trap: a new instance serves the same call, on a thread that
     * nobody knows, for the next interrupt may come before this one could do so.
     */
    private <T> T uninterrupted(Supplier<T> call) {
        try {
            return call.get();
        } catch (ChicoryInterruptedException stopped) {
            engine = null;
        }
        FutureTask<T> again = new FutureTask<>(() -> uninterrupted(call));
        Thread thread = new Thread(again, "autonomy-gate");
        thread.setDaemon(true);
        thread.start();
        boolean interrupted = false;
        try {
            while (true) {
                try {
                    return again.get();
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
        } catch (ExecutionException e) {
            if (e.getCause() instanceof Error) {
                throw (Error) e.getCause();
            }
            throw (RuntimeException) e.getCause();
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    /** What a gate is told once. */
    public static final class Builder {
        private String nodeId;
        private Mode mode = Mode.OFF;
        private byte[] bundle;
        private List<String> trustedKeys = List.of();
        private int threshold = 1;
        private List<String> leaseKeys = List.of();
        private int leaseThreshold = 1;
        private Duration maxStaleness = Duration.ofSeconds(60);
        private Duration maxSkew = Duration.ZERO;
        private byte[] module;

        private Builder() {}

        /**
         * Which node this is. Without one, every call that the gate is asked about is denied.
         *
         * @param nodeId its id, or {@code null}
         * @return this
         */
        public Builder nodeId(String nodeId) {
            this.nodeId = nodeId;
            return this;
        }

        /**
         * How far the gate is turned on; {@link Mode#OFF} unless said.
         *
         * @param mode the mode
         * @return this
         */
        public Builder mode(Mode mode) {
            this.mode = Objects.requireNonNull(mode, "mode");
            return this;
        }

        /**
         * The tar of a bundle. One that does not verify is refused, and no gate is loaded.
         *
         * @param tar its bytes
         * @return this
         */
        public Builder bundle(byte[] tar) {
            bundle = tar.clone();
            return this;
        }

        /**
         * Who may sign bundles. None refuses every bundle.
         *
         * @param pems public keys, as SPKI PEM
         * @return this
         */
        public Builder trustedKeys(String... pems) {
            trustedKeys = List.of(pems);
            return this;
        }

        /**
         * How many distinct ones of the trusted keys must have signed; 1 unless said.
         *
         * @param threshold a count
         * @return this
         */
        public Builder threshold(int threshold) {
            this.threshold = threshold;
            return this;
        }

        /**
         * Who may sign leases. None refuses every lease.
         *
         * @param pems public keys, as SPKI PEM
         * @return this
         */
        public Builder leaseKeys(String... pems) {
            leaseKeys = List.of(pems);
            return this;
        }

        /**
         * How many distinct ones of the lease keys must have signed; 1 unless said.
         *
         * @param threshold a count
         * @return this
         */
        public Builder leaseThreshold(int threshold) {
            leaseThreshold = threshold;
            return this;
        }

        /**
         * How long an answer counts after it was observed; a minute unless said.
         *
         * @param maxStaleness whole milliseconds
         * @return this
         */
        public Builder maxStaleness(Duration maxStaleness) {
            this.maxStaleness = Objects.requireNonNull(maxStaleness, "maxStaleness");
            return this;
        }

        /**
         * How far the source's clock may be ahead; not at all unless said.
         *
         * @param maxSkew whole milliseconds
         * @return this
         */
        public Builder maxSkew(Duration maxSkew) {
            this.maxSkew = Objects.requireNonNull(maxSkew, "maxSkew");
            return this;
        }

        /**
         * Another module than the one that comes with this package. It is interpreted, and about a hundred times slower: for
         * tests, and to try a new one.
         *
         * @param wasm its bytes
         * @return this
         */
        public Builder module(byte[] wasm) {
            module = wasm.clone();
            return this;
        }

        /**
         * Loads the gate.
         *
         * @return the gate
         * @throws GateException where the configuration, the bundle or the module is refused
         */
        public Gate load() {
            return load(module == null ? Engine.compiled() : Engine.interpreted(module));
        }

        /** Loads the gate on this engine: tests bring one that traps. */
        Gate load(Engine.Factory engines) {
            return new Gate(this, engines);
        }

        private String document() {
            JsonWriter out = new JsonWriter().member("mode", mode.toString()).member("node_id", nodeId);
            out.member("bundle_keys", trustedKeys).member("bundle_threshold", threshold);
            out.member("lease_keys", leaseKeys).member("lease_threshold", leaseThreshold);
            out.member("max_staleness_ms", TimeUnit.MILLISECONDS.convert(maxStaleness));
            out.member("max_skew_ms", TimeUnit.MILLISECONDS.convert(maxSkew));
            return out.end();
        }
    }
}
