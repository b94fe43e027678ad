package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.Answer;
import dev.autonomygate.DeniedException;
import dev.autonomygate.Enrollment;
import dev.autonomygate.EnrollmentSource;
import dev.autonomygate.FactsNotLoggedException;
import dev.autonomygate.Frame;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.Mode;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.Policy;
import dev.autonomygate.PolicyAnswer;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** From a call to a permit: what is looked up, decided and written down. */
@Timeout(300)
class GuardTest {
    private final MemoryHost host = new MemoryHost();

    @BeforeEach
    void enroll() {
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
    }

    private Guard.Builder builder() {
        return Support.patient(Support.good().load(), host);
    }

    private static DeniedException denied(Guard guard, Reason reason) {
        DeniedException denied = assertThrows(DeniedException.class, () -> guard.ask("tool.echo"));
        assertEquals(reason, denied.reason());
        return denied;
    }

    private List<String> kinds() {
        return host.frames().stream().map(Frame::kind).collect(Collectors.toList());
    }

    @Test
    void aPermitSaysOnceHowTheToolWent() throws Exception {
        Guard guard = builder().build();
        PolicyAnswer policy = PolicyAnswer.ALLOWED.withRef("fleet@1");
        try (Permit permit = guard.ask(ToolCall.of("tool.echo").withPolicy(policy))) {
            permit.finish(Outcome.FAILED).get();
            permit.finish(Outcome.COMPLETED).get();
        }
        assertEquals(List.of("autonomy.facts", "autonomy.decision", "autonomy.action"), kinds());
        assertEquals("fleet@1", Support.read(host.frames().get(1).attrs()).get("policy_ref").asText());
        assertEquals("failed", Support.read(host.frames().get(2).attrs()).get("outcome").asText());
        Permit abandoned = guard.ask("tool.echo");
        abandoned.close();
        // Nobody waits for what a close writes down: this does, and says nothing more.
        abandoned.finish(Outcome.COMPLETED).get();
        assertEquals("abandoned", Support.read(host.frames().get(4).attrs()).get("outcome").asText());
        guard.ask("tool.echo").finish(Outcome.COMPLETED).get();
        assertEquals("completed", Support.read(host.frames().get(6).attrs()).get("outcome").asText());
        // The facts are logged when they change, and they did not.
        assertEquals(1, kinds().stream().filter("autonomy.facts"::equals).count());
    }

    @Test
    void aRevokeDeniesTheNextCall() throws Exception {
        Guard guard = builder().build();
        guard.ask("tool.echo");
        host.revoke(Support.NODE);
        DeniedException denied = denied(guard, Reason.ENROLLMENT_REVOKED);
        assertEquals(403, denied.status());
        assertEquals("{\"decision\":\"deny\",\"reason\":\"attestation: enrollment_revoked\",\"policy_ref\":null,\"audit_id\":\""
                + denied.auditId() + "\"}", denied.json());
        Guard advisory = Guard.of(Support.good().mode(Mode.ADVISORY).load(), host);
        advisory.ask("tool.echo");
        Frame last = host.frames().get(host.frames().size() - 1);
        assertEquals(false, Support.read(last.attrs()).get("enforced").asBoolean(true));
    }

    @Test
    void aSourceThatIsSlowOrLiesHasNotAnswered() {
        Map<String, Answer> lies = Map.of(
                "malformed", Answer.json("<html>"),
                "the source answered for node", Answer.enrolled(Enrollment.of("robot-8", "fleet-a"), System.currentTimeMillis()),
                "`observed_at_ms`", Answer.json("{\"answer\":\"not_enrolled\"}"));
        lies.forEach((why, answer) -> {
            MemoryHost log = new MemoryHost();
            denied(builder().source(node -> answer).sink(log).build(), Reason.ENROLLMENT_UNAVAILABLE);
            assertTrue(log.frames().get(0).attrs().contains(why), () -> log.frames().get(0).attrs());
        });
        denied(builder().source(node -> null).build(), Reason.ENROLLMENT_UNAVAILABLE);
        denied(builder().source(node -> {
            throw new StackOverflowError();
        }).build(), Reason.ENROLLMENT_UNAVAILABLE);
        CountDownLatch never = new CountDownLatch(1);
        denied(builder().lookUpTimeout(Duration.ofMillis(50)).source(node -> {
            never.await();
            return null;
        }).build(), Reason.ENROLLMENT_UNAVAILABLE);
    }

    @Test
    void anAnswerIsLateAlsoWhereTheCallerLooksUpItself() {
        ThreadPoolExecutor full = new ThreadPoolExecutor(
                1, 1, 0, TimeUnit.SECONDS, new SynchronousQueue<>(), new ThreadPoolExecutor.CallerRunsPolicy());
        CountDownLatch over = new CountDownLatch(1);
        full.submit(() -> {
            over.await();
            return null;
        });
        try {
            Guard guard = builder()
                    .executor(full)
                    .lookUpTimeout(Duration.ofMillis(20))
                    .source(node -> {
                        Thread.sleep(50);
                        return host.lookUp(node);
                    })
                    .build();
            denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
        } finally {
            full.shutdownNow();
        }
        String facts = host.frames().get(0).attrs();
        assertTrue(facts.contains("\"why\":\"the look-up took longer than 20 ms\""), facts);
    }

    /** An error whose own code fails. */
    private static final class NoText extends RuntimeException {
        private static final long serialVersionUID = 1L;

        @Override
        public String getMessage() {
            throw new IllegalStateException("it has no text");
        }
    }

    @Test
    void whateverComesAfterAnAnswerThatAllowedDeniesAndTheNextOneCounts() throws Exception {
        List<EnrollmentSource> hostile = List.of(
                node -> null,
                node -> Answer.json(""),
                node -> Answer.json("null"),
                node -> Answer.json("x".repeat(68 << 20)),
                node -> Answer.lease(new byte[68 << 20]),
                // It is read, and then there is no memory left for what it says.
                node -> Answer.unavailable("\n".repeat(32 << 20)),
                node -> fail(new StackOverflowError()),
                node -> fail(new OutOfMemoryError()),
                node -> fail(new AssertionError()),
                node -> fail(new NoClassDefFoundError()),
                node -> fail(new NoText()),
                node -> fail(new InterruptedException()),
                node -> fail(new CancellationException()));
        for (EnrollmentSource source : hostile) {
            AtomicInteger asked = new AtomicInteger();
            Gate gate = Support.good().load();
            Guard guard = Guard.builder(gate)
                    .source(node -> asked.getAndIncrement() == 1 ? source.lookUp(node) : host.lookUp(node))
                    .sink(host)
                    .build();
            guard.ask("tool.echo");
            denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
            assertEquals(Reason.ENROLLMENT_UNAVAILABLE, gate.verdict().reason().orElseThrow());
            Frame last = host.frames().get(host.frames().size() - 1);
            assertEquals("attestation: enrollment_unavailable", Support.read(last.attrs()).get("reason").asText());
            guard.ask("tool.echo");
        }
    }

    /** Throws what no signature allows. */
    @SuppressWarnings("unchecked")
    private static <T extends Throwable> Answer fail(Throwable error) throws T {
        throw (T) error;
    }

    @Test
    void anAnswerThatOnlyLooksLikeTheOneBeforeItButForItsTimeIsRead() throws Exception {
        String allowed = host.lookUp(Support.NODE).toString();
        Matcher found = Pattern.compile("\"observed_at_ms\":\\d+").matcher(allowed);
        assertTrue(found.find());
        String time = found.group();
        List<String> nonsense = List.of(
                allowed.replace(time, time.replace(":", ":000")),
                allowed.replace("}," + time, time + "},"),
                allowed.replace("," + time + "}", time + ",}"),
                "{" + time.replace(":", ":1.5,") + allowed.substring(1));
        for (String json : nonsense) {
            AtomicInteger asked = new AtomicInteger();
            Guard guard = builder().source(node -> Answer.json(asked.getAndIncrement() == 0 ? allowed : json)).build();
            guard.ask("tool.echo");
            denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
        }
    }

    @Test
    void aTimeoutMayBeForEver() throws Exception {
        Duration forEver = Duration.ofSeconds(Long.MAX_VALUE);
        Guard guard = Guard.builder(Support.good().maxStaleness(forEver).load())
                .source(host)
                .sink(host)
                .lookUpTimeout(forEver)
                .appendTimeout(forEver)
                .maxAge(forEver)
                .build();
        guard.ask("tool.echo");
        host.revoke(Support.NODE);
        guard.ask("tool.echo");
    }

    @Test
    void anAppendThatFailsDeniesInEveryMode() {
        for (Mode mode : Mode.values()) {
            Gate gate = Support.good().mode(mode).load();
            Guard.Builder builder = Support.patient(gate, host);
            assertEquals("disk full", denied(builder.sink(frames -> {
                throw new IllegalStateException("disk full");
            }).build(), Reason.WAL_UNAVAILABLE).getCause().getMessage());
            denied(builder.sink(frames -> {
                throw new FactsNotLoggedException("never");
            }).build(), Reason.WAL_UNAVAILABLE);
            builder.appendTimeout(Duration.ofMillis(50));
            denied(builder.sink(frames -> TimeUnit.MINUTES.sleep(1)).build(), Reason.WAL_UNAVAILABLE);
        }
    }

    @Test
    void whatPermitsFinishWithHasTheTimeOfAnAppend() throws Exception {
        AtomicInteger hanging = new AtomicInteger();
        Guard guard = builder()
                .appendTimeout(Duration.ofSeconds(1))
                .sink(frames -> {
                    if (!frames.json().contains("autonomy.action")) {
                        host.append(frames);
                        return;
                    }
                    hanging.incrementAndGet();
                    try {
                        TimeUnit.HOURS.sleep(1);
                    } finally {
                        hanging.decrementAndGet();
                    }
                })
                .build();
        // More in all than there are threads for all guards.
        for (int round = 0; round < 2; round += 1) {
            List<CompletableFuture<Void>> finished = new ArrayList<>();
            for (int i = 0; i < 600; i += 1) {
                finished.add(guard.ask("tool.echo").finish(Outcome.COMPLETED));
            }
            for (CompletableFuture<Void> one : finished) {
                one.get(1, TimeUnit.MINUTES);
            }
            assertEquals(0, hanging.get());
        }
        for (int i = 0; i < 2_000; i += 1) {
            guard.ask("tool.echo");
        }
    }

    @Test
    void aPolicyWithoutAnAnswerDenies() throws Exception {
        Map<Reason, Policy> policies = Map.of(
                Reason.DENIED, call -> PolicyAnswer.of(Reason.DENIED).withDetail("not with " + call.params().orElseThrow()),
                Reason.UNDEFINED, call -> null,
                Reason.EVALUATION_FAILED, call -> {
                    throw new IllegalStateException("line 3");
                });
        for (Map.Entry<Reason, Policy> entry : policies.entrySet()) {
            Guard guard = builder().policy(entry.getValue()).build();
            DeniedException denied = assertThrows(
                    DeniedException.class, () -> guard.ask(ToolCall.of("tool.echo").withParams(List.of(1))));
            assertEquals(entry.getKey(), denied.reason());
        }
        String frames = host.frames().toString();
        assertTrue(frames.contains("not with [1]") && frames.contains("line 3"), frames);
        assertThrows(GateException.class, () -> PolicyAnswer.of(Reason.NOT_ENROLLED));
        denied(builder().policy(call -> {
            throw new NoText();
        }).build(), Reason.EVALUATION_FAILED);
    }

    @Test
    void anAnswerStandsForItsTime() throws Exception {
        Guard lenient = builder().maxAge(Duration.ofHours(1)).build();
        lenient.ask("tool.echo");
        Guard guard = builder().maxAge(Duration.ofMillis(5)).build();
        guard.ask("tool.echo");
        host.revoke(Support.NODE);
        lenient.ask("tool.echo");
        Thread.sleep(20);
        denied(guard, Reason.ENROLLMENT_REVOKED);
    }

    @Test
    void ofTwoLookUpsTheOneThatBeganLaterCounts() throws Exception {
        Answer before = host.lookUp(Support.NODE);
        CountDownLatch asked = new CountDownLatch(1);
        CountDownLatch released = new CountDownLatch(1);
        AtomicReference<Boolean> held = new AtomicReference<>(true);
        Guard guard = builder().source(node -> {
            if (held.getAndSet(false)) {
                asked.countDown();
                released.await();
                return before;
            }
            return host.lookUp(node);
        }).build();
        AtomicReference<Throwable> early = new AtomicReference<>();
        Thread first = new Thread(() -> early.set(assertThrows(DeniedException.class, () -> guard.ask("tool.echo"))));
        first.start();
        asked.await();
        host.revoke(Support.NODE);
        denied(guard, Reason.ENROLLMENT_REVOKED);
        released.countDown();
        first.join();
        assertEquals(Reason.ENROLLMENT_REVOKED, ((DeniedException) early.get()).reason());
    }

    @Test
    void whoIsInterruptedIsDenied() {
        Guard guard = builder().sink(frames -> TimeUnit.MINUTES.sleep(1)).build();
        Thread.currentThread().interrupt();
        DeniedException denied = denied(guard, Reason.WAL_UNAVAILABLE);
        assertTrue(Thread.interrupted());
        assertEquals(InterruptedException.class, denied.getCause().getClass());
    }

    @Test
    void anInterruptedLookUpIsNoAnswerForOtherCalls() throws Exception {
        AtomicBoolean slow = new AtomicBoolean(true);
        Guard guard = builder()
                .source(node -> {
                    if (slow.get()) {
                        TimeUnit.MINUTES.sleep(1);
                    }
                    return host.lookUp(node);
                })
                .maxAge(Duration.ofHours(1))
                .build();
        Thread.currentThread().interrupt();
        DeniedException denied = denied(guard, Reason.WAL_UNAVAILABLE);
        assertTrue(Thread.interrupted());
        assertEquals(InterruptedException.class, denied.getCause().getClass());
        slow.set(false);
        guard.ask("tool.echo").finish(Outcome.COMPLETED);
    }

    @Test
    void aSourceThatWasInterruptedItselfHasNotAnswered() {
        Guard guard = builder()
                .source(node -> {
                    throw new InterruptedException();
                })
                .build();
        denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
        assertFalse(Thread.interrupted());
    }

    @Test
    void runGivesWhatTheToolGivesAndThrowsWhatItThrows() throws Exception {
        Guard guard = builder().build();
        assertEquals(7, guard.run(ToolCall.of("tool.echo"), () -> 7));
        Exception broke = new Exception("broke");
        assertSame(broke, assertThrows(Exception.class, () -> guard.run(ToolCall.of("tool.echo"), () -> {
            throw broke;
        })));
        assertThrows(GateException.class, () -> guard.ask("no tool"));
    }
}
