package dev.autonomygate;

import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.FutureTask;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Asks before each tool: looks up the enrollment, decides, and has the decision written down. No tool runs without a permit,
 * and there is a permit only when the frames of its decision are durable. Any number of threads may share a guard: telling the
 * gate what was looked up and deciding on it are one step under a lock, while look-ups and appends, on a pool of threads so
 * that each has its time limit, go on beside each other.
 *
 * <p>A guard owns what its gate is told about the enrollment: use one guard for a gate.
 */
public final class Guard {
    /** More look-ups and appends at once are refused, which denies. */
    private static final int MAX_WAITING = 1024;
    /** Inside of a string there would be a backslash before the second quote. */
    private static final Pattern OBSERVED_AT = Pattern.compile("\"observed_at_ms\":([1-9]\\d{0,15})(?=[,}])");

    private static final Answer NO_NODE_ID = Answer.unavailable("the gate has no node id");

    private final Gate gate;
    private final EnrollmentSource source;
    private final DecisionSink sink;
    private final Policy policy;
    private final long maxAgeNs;
    private final long lookUpTimeoutNs;
    private final long appendTimeoutNs;
    private final ExecutorService executor;
    private final Lock lock = new ReentrantLock();
    /** What the source answered last, and when it was asked. */
    private Answer known;
    private long knownAskedNs;
    /** What the gate was told: all of the answer but the digits of its time, and the time. {@code null} where it has none. */
    private String toldSame;
    private long toldObservedMs;
    private volatile String factsLogged;

    private Guard(Builder builder) {
        gate = builder.gate;
        source = Objects.requireNonNull(builder.source, "source");
        sink = Objects.requireNonNull(builder.sink, "sink");
        policy = builder.policy;
        maxAgeNs = TimeUnit.NANOSECONDS.convert(builder.maxAge);
        lookUpTimeoutNs = TimeUnit.NANOSECONDS.convert(builder.lookUpTimeout);
        appendTimeoutNs = TimeUnit.NANOSECONDS.convert(builder.appendTimeout);
        executor = builder.executor == null ? Threads.POOL : builder.executor;
    }

    /**
     * A guard whose host answers and writes, such as {@link NativeHost}.
     *
     * @param gate what decides
     * @param host who says whether the node is enrolled, and where decisions are written down
     * @param <H> a source that is a sink
     * @return the guard
     */
    public static <H extends EnrollmentSource & DecisionSink> Guard of(Gate gate, H host) {
        return builder(gate).source(host).sink(host).build();
    }

    /**
     * Begins to build a guard.
     *
     * @param gate what decides
     * @return a builder, which still needs a source and a sink
     */
    public static Builder builder(Gate gate) {
        return new Builder(gate);
    }

    /**
     * Asks whether a tool may run.
     *
     * @param tool the tool's name
     * @return a permit: the decision is durable
     * @throws DeniedException where the tool may not run
     * @throws GateException where the name is none: nothing is written down then
     */
    public Permit ask(String tool) throws DeniedException {
        return ask(ToolCall.of(tool));
    }

    /**
     * Asks whether a call may run.
     *
     * @param call the call
     * @return a permit: the decision is durable
     * @throws DeniedException where the call may not run
     * @throws GateException where the call is malformed: nothing is written down then
     */
    public Permit ask(ToolCall call) throws DeniedException {
        PolicyAnswer answered = call.policy().orElseGet(() -> policyOf(call));
        String auditId = call.auditId().orElseGet(() -> AuditId.of(System.currentTimeMillis()));
        Call asked = Call.of(call.tool()).withPolicy(answered).withAuditId(auditId);
        Answer answer;
        try {
            answer = lookUp();
        } catch (InterruptedException e) {
            throw new DeniedException(Reason.WAL_UNAVAILABLE, auditId, answered.ref().orElse(null), e);
        }
        Decision decision = decide(asked.withFactsLogged(factsLogged), answer);
        Exception failure = append(decision);
        if (failure instanceof FactsNotLoggedException) {
            // Another log, or an older state of it: this once, with the facts.
            decision = decide(asked, answer);
            failure = append(decision);
        }
        if (failure != null) {
            throw new DeniedException(Reason.WAL_UNAVAILABLE, auditId, answered.ref().orElse(null), failure);
        }
        if (decision.effect() != Effect.ALLOW) {
            throw new DeniedException(decision.reason().orElseThrow(), auditId, answered.ref().orElse(null), null);
        }
        return new Permit(auditId, (outcome, tookMs) -> finish(call.tool(), auditId, outcome, tookMs));
    }

    /**
     * Asks, runs, and writes down how it went: completed, or failed where it throws.
     *
     * @param call the call
     * @param tool what runs with a permit
     * @param <T> what it gives
     * @return what it gave
     * @throws DeniedException where the call may not run
     * @throws Exception what the tool throws
     */
    public <T> T run(ToolCall call, Callable<T> tool) throws Exception {
        Permit permit = ask(call);
        Outcome outcome = Outcome.FAILED;
        try {
            T output = tool.call();
            outcome = Outcome.COMPLETED;
            return output;
        } finally {
            permit.finish(outcome);
        }
    }

    private PolicyAnswer policyOf(ToolCall call) {
        if (policy == null) {
            return PolicyAnswer.ALLOWED;
        }
        try {
            PolicyAnswer answer = policy.ask(call);
            return answer == null ? PolicyAnswer.of(Reason.UNDEFINED) : answer;
        } catch (Exception e) {
            return PolicyAnswer.of(Reason.EVALUATION_FAILED).withDetail(GateException.line(e));
        }
    }

    /** Throws where whoever called has given up: that must not count as an answer, for other calls. */
    private Answer lookUp() throws InterruptedException {
        String nodeId = gate.nodeId().orElse(null);
        if (nodeId == null) {
            // There is nobody to ask for, and the verdict fails before it looks at the answer.
            return NO_NODE_ID;
        }
        long askedNs = System.nanoTime();
        lock.lock();
        try {
            if (known != null && askedNs - knownAskedNs < maxAgeNs) {
                return known;
            }
        } finally {
            lock.unlock();
        }
        Answer answer;
        try {
            answer = within(lookUpTimeoutNs, "the look-up", () -> source.lookUp(nodeId));
            if (System.nanoTime() - askedNs > lookUpTimeoutNs) {
                // This thread may wake up late, and an executor may have it run the look-up itself.
                throw late("the look-up", lookUpTimeoutNs);
            }
            if (answer == null) {
                answer = Answer.unavailable("the source gave no answer");
            }
        } catch (InterruptedException e) {
            throw e;
        } catch (Exception e) {
            answer = Answer.unavailable(GateException.line(e));
        }
        lock.lock();
        try {
            // A look-up that began later knows better.
            if (known == null || knownAskedNs - askedNs <= 0) {
                known = answer;
                knownAskedNs = askedNs;
            }
            return known;
        } finally {
            lock.unlock();
        }
    }

    /** Tells and decides in one step: no other call's answer comes in between. */
    private Decision decide(Call call, Answer answer) {
        lock.lock();
        try {
            long nowMs = System.currentTimeMillis();
            tell(answer, nowMs);
            return gate.decide(call.withNowMs(nowMs));
        } finally {
            lock.unlock();
        }
    }

    /**
     * A row that was read again is the same but for the time, and would be logged as new facts with each call. The answer
     * that was told before stands for half of its time. Only a number as JSON has it is taken out, and the rest stays where it
     * is: what differs from an answer that was read in these digits alone can be read as well.
     */
    private void tell(Answer answer, long nowMs) {
        Matcher observed = OBSERVED_AT.matcher(answer.json == null ? "" : answer.json);
        boolean dated = observed.find();
        long observedMs = dated ? Long.parseLong(observed.group(1)) : 0;
        String same = dated ? answer.json.substring(0, observed.start(1)) + answer.json.substring(observed.end(1)) : null;
        if (dated && same.equals(toldSame)) {
            long ageMs = nowMs - toldObservedMs;
            boolean newer = observedMs >= toldObservedMs && observedMs <= nowMs;
            if (newer && ageMs >= 0 && ageMs < gate.maxStalenessMs / 2) {
                return;
            }
        }
        toldSame = null;
        try {
            gate.setEnrollment(answer);
            toldSame = same;
            toldObservedMs = observedMs;
        } catch (GateException e) {
            // What does not hold has been told as that, and denies.
            if (e.kind() == GateException.Kind.TRAPPED) {
                tellUnavailable(GateException.line(e));
            }
        }
    }

    private void tellUnavailable(String why) {
        try {
            gate.setEnrollment(Answer.unavailable(why));
        } catch (GateException e) {
            // Where it traps as well, no instance can be told, and every call is denied.
            if (e.kind() != GateException.Kind.TRAPPED) {
                throw e;
            }
        }
    }

    /** Gives why the frames may not be durable; {@code null} where they are. */
    private Exception append(Decision decision) {
        String facts = decision.facts().orElse(null);
        if (facts == null) {
            // There are no frames where no instance could decide.
            return null;
        }
        try {
            within(appendTimeoutNs, "the append", () -> {
                sink.append(decision.frames());
                return facts;
            });
        } catch (Exception e) {
            return e;
        }
        factsLogged = facts;
        return null;
    }

    /** Nobody waits for it, and there is nobody to tell. */
    private CompletableFuture<Void> finish(String tool, String auditId, Outcome outcome, long tookMs) {
        String attrs = new JsonWriter()
                .member("tool", tool)
                .member("outcome", outcome.toString())
                .member("took_ms", tookMs)
                .end();
        String frame = new JsonWriter()
                .member("kind", "autonomy.action")
                .member("audit_id", auditId)
                .member("node_id", gate.nodeId().orElse(null))
                .raw("attrs", attrs)
                .end();
        FutureTask<Void> append = new FutureTask<>(() -> {
            sink.append(new Frames("[" + frame + "]"));
            return null;
        });
        CompletableFuture<Void> written = new CompletableFuture<>();
        try {
            executor.execute(() -> {
                append.run();
                written.complete(null);
            });
            // A copy, so that what waits for the end never runs on the thread that keeps the time.
            written.copy()
                    .completeOnTimeout(null, appendTimeoutNs, TimeUnit.NANOSECONDS)
                    .thenRun(() -> append.cancel(true));
        } catch (RejectedExecutionException e) {
            written.complete(null);
        }
        return written;
    }

    private <T> T within(long timeoutNs, String what, Callable<T> call) throws Exception {
        FutureTask<T> task = new FutureTask<>(call);
        try {
            executor.execute(task);
            return task.get(timeoutNs, TimeUnit.NANOSECONDS);
        } catch (RejectedExecutionException e) {
            throw new IllegalStateException(what + " was not tried: too many wait already", e);
        } catch (TimeoutException e) {
            throw late(what, timeoutNs);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw e;
        } catch (ExecutionException e) {
            // An interrupt of that thread is none of this one.
            boolean told = e.getCause() instanceof Exception && !(e.getCause() instanceof InterruptedException);
            throw told ? (Exception) e.getCause() : e;
        } finally {
            // Interrupts what takes too long; nothing where it is over.
            task.cancel(true);
        }
    }

    private static TimeoutException late(String what, long timeoutNs) {
        return new TimeoutException(what + " took longer than " + TimeUnit.NANOSECONDS.toMillis(timeoutNs) + " ms");
    }

    /** The threads of all guards: made when they are needed, gone when they are not, and no reason for a process to stay. */
    private static final class Threads {
        static final ExecutorService POOL = new ThreadPoolExecutor(
                0, MAX_WAITING, 10, TimeUnit.SECONDS, new SynchronousQueue<>(), run -> {
                    Thread thread = new Thread(run, "autonomy-guard");
                    thread.setDaemon(true);
                    return thread;
                });
    }

    /** What a guard is made of. */
    public static final class Builder {
        private final Gate gate;
        private EnrollmentSource source;
        private DecisionSink sink;
        private Policy policy;
        private Duration maxAge = Duration.ZERO;
        private Duration lookUpTimeout = Duration.ofSeconds(2);
        private Duration appendTimeout = Duration.ofSeconds(10);
        private ExecutorService executor;

        private Builder(Gate gate) {
            this.gate = Objects.requireNonNull(gate, "gate");
        }

        /**
         * Who says whether the node is enrolled.
         *
         * @param source the source
         * @return this
         */
        public Builder source(EnrollmentSource source) {
            this.source = source;
            return this;
        }

        /**
         * Where decisions are written down.
         *
         * @param sink the sink
         * @return this
         */
        public Builder sink(DecisionSink sink) {
            this.sink = sink;
            return this;
        }

        /**
         * The host's own policy. Without one, every call goes to the gate.
         *
         * @param policy the policy
         * @return this
         */
        public Builder policy(Policy policy) {
            this.policy = Objects.requireNonNull(policy, "policy");
            return this;
        }

        /**
         * How long an answer is asked for no more. Not at all unless said: every call looks up, and sees a revoke at once.
         *
         * @param maxAge the time since it was asked for
         * @return this
         */
        public Builder maxAge(Duration maxAge) {
            this.maxAge = Objects.requireNonNull(maxAge, "maxAge");
            return this;
        }

        /**
         * How long a look-up may take; 2 seconds unless said.
         *
         * @param timeout the time
         * @return this
         */
        public Builder lookUpTimeout(Duration timeout) {
            lookUpTimeout = Objects.requireNonNull(timeout, "timeout");
            return this;
        }

        /**
         * How long an append may take; 10 seconds unless said.
         *
         * @param timeout the time
         * @return this
         */
        public Builder appendTimeout(Duration timeout) {
            appendTimeout = Objects.requireNonNull(timeout, "timeout");
            return this;
        }

        /**
         * Where look-ups and appends run; daemon threads of the package unless said. One that refuses a task denies the call.
         *
         * @param executor one that runs tasks beside each other, such as one of virtual threads
         * @return this
         */
        public Builder executor(ExecutorService executor) {
            this.executor = Objects.requireNonNull(executor, "executor");
            return this;
        }

        /**
         * Builds the guard.
         *
         * @return the guard
         */
        public Guard build() {
            return new Guard(this);
        }
    }
}
