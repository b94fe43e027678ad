package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.Answer;
import dev.autonomygate.Bundle;
import dev.autonomygate.Call;
import dev.autonomygate.Decided;
import dev.autonomygate.Decision;
import dev.autonomygate.Effect;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Explanation;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Mode;
import dev.autonomygate.Reason;
import dev.autonomygate.SubCheck;
import dev.autonomygate.Verdict;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.apache.tomcat.util.buf.HexUtils;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The gate alone. */
class GateTest {
    private static Gate enrolled() {
        return enrolled(Support.good());
    }

    private static Gate enrolled(Gate.Builder builder) {
        Gate gate = builder.load();
        gate.setEnrollment(Answer.enrolled(
                Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), System.currentTimeMillis()));
        return gate;
    }

    @Test
    void decidesAndSaysOnWhat() throws Exception {
        Gate gate = enrolled();
        assertEquals(Verdict.PASS, gate.verdict());
        Decision decision = gate.decide("tool.echo");
        assertEquals(Effect.ALLOW, decision.effect());
        assertTrue(decision.auditId().matches("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
        Explanation explanation = gate.explain();
        assertEquals(decision.facts().orElseThrow(), explanation.factsId());
        byte[] hash = MessageDigest.getInstance("SHA-256").digest(explanation.facts().getBytes(StandardCharsets.UTF_8));
        assertEquals("sha256:" + HexUtils.toHexString(hash), explanation.factsId());
        assertEquals(10, explanation.subChecks().size());
        assertEquals(SubCheck.Outcome.PASS, explanation.subChecks().get(0).outcome());
        assertEquals(1, gate.info().abiMajor());
        assertEquals(1024, gate.info().limits().get("batch_calls"));
    }

    @Test
    void aRefusedBundleKeepsTheActiveOne() {
        Gate gate = enrolled();
        Bundle active = gate.bundle().orElseThrow();
        byte[] broken = Support.GOOD.tar.clone();
        broken[600] ^= 1;
        GateException refused = assertThrows(GateException.class, () -> gate.loadBundle(broken));
        assertEquals(GateException.Kind.REFUSED, refused.kind());
        assertEquals(active, gate.bundle().orElseThrow());
        assertEquals(Verdict.PASS, gate.verdict());
        assertEquals(GateException.Kind.REFUSED, assertThrows(
                GateException.class, () -> Support.good().bundle(broken).load()).kind());
    }

    @Test
    void whatDoesNotHoldDeniesFromThenOn() {
        Gate gate = enrolled();
        assertThrows(GateException.class, () -> gate.setEnrollment(Answer.json("{}")));
        assertEquals(Reason.ENROLLMENT_UNAVAILABLE, gate.verdict().reason().orElseThrow());
        assertThrows(GateException.class, () -> gate.setEnrollment(Answer.lease("{}")));
        assertEquals(Reason.ENROLLMENT_UNTRUSTED, gate.verdict().reason().orElseThrow());
    }

    @Test
    void anAnswerThatIsTooLargeOrNoneDoesNotLeaveTheOneBeforeIt() {
        String large = "x".repeat(68 << 20);
        for (Answer answer : Arrays.asList(Answer.json(large), Answer.lease(large), null)) {
            Gate gate = enrolled();
            assertEquals(Verdict.PASS, gate.verdict());
            assertEquals(GateException.Kind.MALFORMED, assertThrows(
                    GateException.class, () -> gate.setEnrollment(answer)).kind());
            assertEquals(Reason.ENROLLMENT_UNAVAILABLE, gate.verdict().reason().orElseThrow());
        }
    }

    @Test
    void halfASurrogatePairIsNoAnswer() {
        Answer active = Answer.enrolled(
                Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef).withStatus("a"), System.currentTimeMillis());
        Gate gate = enrolled();
        for (String half : List.of("active\ud800", "\udc00")) {
            Answer answer = Answer.json(active.toString().replace("\"a\"", "\"" + half + "\""));
            gate.setEnrollment(Answer.enrolled(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), System.currentTimeMillis()));
            assertEquals(Verdict.PASS, gate.verdict());
            GateException error = assertThrows(GateException.class, () -> gate.setEnrollment(answer));
            assertEquals(GateException.Kind.MALFORMED, error.kind());
            assertEquals("the answer holds half a surrogate pair, which is no text: give it as it came", error.getMessage());
            assertEquals(Reason.ENROLLMENT_UNAVAILABLE, gate.verdict().reason().orElseThrow());
        }
        gate.setEnrollment(Answer.json(active.toString().replace("\"a\"", "\"\ud83d\ude00\"")));
        assertEquals(Reason.ENROLLMENT_REVOKED, gate.verdict().reason().orElseThrow());
    }

    @Test
    void anAnswerMayStandForEver() {
        Gate gate = Support.good().maxStaleness(Duration.ofSeconds(Long.MAX_VALUE)).maxSkew(Duration.ofSeconds(Long.MAX_VALUE)).load();
        gate.setEnrollment(Answer.enrolled(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), 1));
        assertEquals(Verdict.PASS, gate.verdict());
        assertEquals(Duration.ofSeconds(Long.MAX_VALUE), gate.maxStaleness());
        assertThrows(GateException.class, () -> Support.good().maxSkew(Duration.ofSeconds(Long.MIN_VALUE)).load());
    }

    @Test
    void serialsAreExactUpToTheirLast() {
        Gate gate = Support.good().load();
        gate.setEnrollment(Answer.enrolled(
                Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef).withSerial(-1), System.currentTimeMillis()));
        assertTrue(gate.explain().facts().contains("\"serial\":18446744073709551615"));
    }

    @Test
    void aBatchDecidesWhatAsManyCallsWould() {
        Gate gate = enrolled();
        List<Call> calls = new ArrayList<>();
        for (int i = 0; i < 1_500; i += 1) {
            calls.add(Call.of("tool.echo").withAuditId("call-" + i).withNowMs(System.currentTimeMillis()));
        }
        for (int i = 0; i < calls.size(); i += 97) {
            Decision one = gate.decide(calls.get(i));
            assertEquals(one.frames().json(), gate.decideBatch(calls).get(i).decision().frames().json());
        }
        assertEquals(List.of(), gate.decideBatch(List.of()));
    }

    @Test
    void aMillionCallsLeaveTheMemoryAsItWas() {
        // On a busy machine they take more than the minute for which an answer stands.
        Gate gate = enrolled(Support.good().maxStaleness(Duration.ofHours(1)));
        // More tools than calls that the module remembers.
        Call[] calls = IntStream.range(0, 40).mapToObj(tool -> Call.of("tool." + tool)).toArray(Call[]::new);
        for (int i = 0; i < 100; i += 1) {
            gate.decide(calls[i % calls.length]);
        }
        long bytes = gate.memoryBytes();
        for (int i = 0; i < 1_000_000; i += 1) {
            gate.decide(calls[i % calls.length]);
        }
        assertEquals(bytes, gate.memoryBytes());
    }

    @Test
    void anInterruptDoesNotCutADecisionShort() {
        Gate gate = enrolled();
        Thread.currentThread().interrupt();
        Decision decision = gate.decide("tool.echo");
        assertTrue(Thread.interrupted());
        assertEquals(Effect.ALLOW, decision.effect());
    }

    @Test
    @Timeout(300)
    void interruptsWhileItDecidesAreKeptAndChangeNothing() throws Exception {
        try (Interrupts interrupts = new Interrupts()) {
            for (Mode mode : Mode.values()) {
                Gate gate = enrolled(Support.good().mode(mode).maxStaleness(Duration.ofHours(1)));
                for (int i = 0; i < 20_000; i += 1) {
                    Decision decision = interrupts.kept(() -> gate.decide("tool.echo"));
                    assertEquals(Effect.ALLOW, decision.effect());
                    assertTrue(decision.facts().isPresent());
                    assertEquals("autonomy.facts", decision.frames().list().get(0).kind());
                }
            }
        }
    }

    @Test
    @Timeout(300)
    void interruptsChangeNoOtherCallEither() throws Exception {
        Answer answer = Answer.enrolled(
                Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), System.currentTimeMillis());
        Call echo = Call.of("tool.echo");
        try (Interrupts interrupts = new Interrupts()) {
            for (int i = 0; i < 50; i += 1) {
                Gate gate = interrupts.kept(() -> Support.good().maxStaleness(Duration.ofHours(1)).load());
                interrupts.kept(() -> gate.loadBundle(Support.GOOD.tar));
                interrupts.kept(() -> {
                    gate.setEnrollment(answer);
                    return answer;
                });
                assertEquals(Verdict.PASS, interrupts.kept(gate::verdict));
                assertEquals(10, interrupts.kept(gate::explain).subChecks().size());
                assertEquals(1, interrupts.kept(gate::info).abiMajor());
                for (Decided decided : interrupts.kept(() -> gate.decideBatch(Collections.nCopies(100, echo)))) {
                    assertEquals(Effect.ALLOW, decided.decision().effect());
                }
            }
        }
    }

    /** A thread that interrupts the one that made it, again and again. */
    private static final class Interrupts implements AutoCloseable {
        private final AtomicInteger sent = new AtomicInteger();
        private final AtomicBoolean over = new AtomicBoolean();
        private final Thread sender;

        Interrupts() {
            Thread receiver = Thread.currentThread();
            sender = new Thread(() -> {
                Random random = new Random(7);
                while (!over.get()) {
                    receiver.interrupt();
                    sent.incrementAndGet();
                    LockSupport.parkNanos(random.nextInt(200_000));
                }
            });
            sender.start();
        }

        <T> T kept(Supplier<T> call) {
            int before = sent.get();
            T result = call.get();
            // The first one may have come before the call, and been taken away by the line below.
            boolean cameMeanwhile = sent.get() > before + 1;
            assertTrue(Thread.interrupted() || !cameMeanwhile);
            return result;
        }

        @Override
        public void close() {
            over.set(true);
            while (sender.isAlive()) {
                Thread.yield();
            }
            Thread.interrupted();
        }
    }

    @Test
    void thereAreNoPermitsOfAClosedGate() {
        Gate gate = enrolled();
        gate.close();
        assertThrows(IllegalStateException.class, () -> gate.decide("tool.echo"));
        assertThrows(IllegalStateException.class, gate::verdict);
    }

    @Test
    void settingsAreRefusedWithTheirReason() {
        assertEquals("`Enforce` is no mode: use `off`, `advisory` or `enforce`",
                assertThrows(GateException.class, () -> Mode.parse("Enforce")).getMessage());
        assertEquals(GateException.Kind.MALFORMED, assertThrows(
                GateException.class, () -> Gate.builder().nodeId("no id").load()).kind());
        assertThrows(GateException.class, () -> enrolled().verdict(-1));
        assertThrows(GateException.class, () -> enrolled().decide("no tool"));
    }
}
