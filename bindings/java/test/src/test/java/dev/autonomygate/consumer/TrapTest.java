package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.autonomygate.Answer;
import dev.autonomygate.Call;
import dev.autonomygate.Decided;
import dev.autonomygate.Decision;
import dev.autonomygate.DeniedException;
import dev.autonomygate.Effect;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Frame;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.Mode;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import dev.autonomygate.Trapping;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** A module that traps on the tool {@code gate.trap}, and what comes after: docs/src/spec/abi.md, "Threads, traps, time". */
@Timeout(300)
class TrapTest {
    private final AtomicInteger ran = new AtomicInteger();
    private final MemoryHost host = new MemoryHost();

    @BeforeEach
    void enroll() {
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void aTrapInEachInstanceDeniesAndLeavesNothingToAppend(Trapping engine) throws Exception {
        for (Mode mode : Mode.values()) {
            Gate gate = engine.always(Support.good().mode(mode));
            Guard guard = guard(gate);
            allowed(guard, 1);
            for (int round = 0; round < 3; round += 1) {
                DeniedException denied = denied(guard);
                assertEquals(Reason.WAL_UNAVAILABLE, denied.reason());
                assertEquals(503, denied.status());
                assertEquals(List.of(), frames(denied));
            }
            allowed(guard, 1_000);

            Decision trapped = gate.decide("gate.trap");
            assertEquals(Effect.DENY, trapped.effect());
            assertEquals(Reason.WAL_UNAVAILABLE, trapped.reason().orElseThrow());
            assertEquals("[]", trapped.frames().json());
            assertTrue(trapped.facts().isEmpty());
        }
        Support.withstood("trap");
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void aTrapThatDoesNotComeAgainIsWrittenDownWhereTheModeDenies(Trapping engine) throws Exception {
        for (Mode mode : Mode.values()) {
            Guard guard = guard(engine.once(Support.good().mode(mode)));
            allowed(guard, 1);
            DeniedException denied = denied(guard);
            List<JsonNode> frames = frames(denied);
            if (mode == Mode.ENFORCE) {
                assertEquals(Reason.ENROLLMENT_UNAVAILABLE, denied.reason());
                assertEquals(403, denied.status());
                assertEquals(3, frames.size());
                String why = frames.get(0).get("facts").get("enrollment").get("why").asText();
                assertTrue(why.startsWith("the gate trapped: Trapped on unreachable"), why);
                assertEquals("policy: allowed", frames.get(1).get("reason").asText());
                assertEquals("attestation: enrollment_unavailable", frames.get(2).get("reason").asText());
                assertTrue(frames.get(2).get("enforced").asBoolean());
            } else {
                // The new instance would let it through.
                assertEquals(Reason.WAL_UNAVAILABLE, denied.reason());
                assertEquals(503, denied.status());
                assertEquals(List.of(), frames);
            }
            allowed(guard, 1_000);
            // It is another instance, which does not trap on this.
            guard.run(ToolCall.of("gate.trap"), ran::incrementAndGet);
        }
        Support.withstood("trap");
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void anInterruptAfterATrapDoesNotUndoTheDenial(Trapping engine) {
        for (Mode mode : Mode.values()) {
            Gate gate = engine.onceThenInterrupted(Support.good().mode(mode));
            gate.setEnrollment(Answer.enrolled(
                    Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), System.currentTimeMillis()));
            Call trap = Call.of("gate.trap");
            Decision one = gate.decide(trap);
            assertTrue(Thread.interrupted());
            assertEquals(Effect.DENY, one.effect());
            assertEquals(mode == Mode.ENFORCE, one.facts().isPresent());
            assertEquals(Effect.ALLOW, gate.decide(trap).effect());
        }
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void theNextInstanceIsToldEverythingAgain(Trapping engine) {
        Gate gate = engine.always(Support.good());
        long nowMs = System.currentTimeMillis();
        gate.setEnrollment(Answer.enrolled(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), nowMs));
        Call call = Call.of("tool.echo").withNowMs(nowMs);
        Decision before = gate.decide(call);
        assertEquals(Effect.ALLOW, before.effect());
        gate.decide("gate.trap");
        Decision after = gate.decide(call.withFactsLogged(before.facts().orElseThrow()));
        assertEquals(Effect.ALLOW, after.effect());
        assertEquals(before.facts(), after.facts());
        assertEquals(1, after.frames().list().size());
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void ofABatchThatTrapsEachCallIsAnsweredForItself(Trapping engine) {
        Gate gate = engine.always(Support.good());
        gate.setEnrollment(Answer.enrolled(
                Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef), System.currentTimeMillis()));
        Call echo = Call.of("tool.echo");
        List<Decided> batch = gate.decideBatch(List.of(echo, Call.of("gate.trap"), Call.of("no tool"), echo));
        assertEquals(Effect.ALLOW, batch.get(0).decision().effect());
        assertEquals(Effect.DENY, batch.get(1).decision().effect());
        assertEquals(GateException.Kind.MALFORMED, batch.get(2).error().orElseThrow().kind());
        assertEquals(Effect.ALLOW, batch.get(3).decision().effect());
    }

    @ParameterizedTest
    @EnumSource(Trapping.class)
    void whereNoInstanceCanBeMadeEachCallIsDenied(Trapping engine) throws Exception {
        for (Mode mode : Mode.values()) {
            AtomicBoolean room = new AtomicBoolean();
            Guard guard = guard(engine.without(Support.good().mode(mode), room));
            allowed(guard, 1);
            assertEquals(Reason.WAL_UNAVAILABLE, denied(guard).reason());
            // An answer that is new must be told, and cannot be.
            host.enroll(Enrollment.of(Support.NODE, "other"));
            assertEquals(Reason.WAL_UNAVAILABLE, denied(guard).reason());
            enroll();
            assertEquals(Reason.WAL_UNAVAILABLE, denied(guard).reason());
            room.set(true);
            allowed(guard, 10);
        }
        Support.withstood("trap");
    }

    private Guard guard(Gate gate) {
        return Support.patient(gate, host).build();
    }

    private DeniedException denied(Guard guard) {
        int before = ran.get();
        DeniedException denied = assertThrows(
                DeniedException.class, () -> guard.run(ToolCall.of("gate.trap"), ran::incrementAndGet));
        assertEquals(before, ran.get());
        return denied;
    }

    private List<JsonNode> frames(DeniedException denied) {
        return host.frames().stream()
                .filter(frame -> frame.auditId().equals(denied.auditId()))
                .map(frame -> Support.read(frame.attrs()))
                .collect(Collectors.toList());
    }

    /** The next calls run, and the log says of each that it was allowed. */
    private void allowed(Guard guard, int calls) throws Exception {
        int before = ran.get();
        int logged = host.frames().size();
        for (int call = 0; call < calls; call += 1) {
            guard.run(ToolCall.of("tool.echo"), ran::incrementAndGet);
        }
        assertEquals(before + calls, ran.get());
        List<Frame> frames = host.frames();
        List<String> decided = frames.subList(logged, frames.size()).stream()
                .filter(frame -> frame.kind().equals("autonomy.decision"))
                .map(frame -> Support.read(frame.attrs()).get("reason").asText())
                .collect(Collectors.toList());
        assertEquals(calls, decided.stream().filter("policy: allowed"::equals).count());
        assertEquals(calls, decided.size());
    }
}
