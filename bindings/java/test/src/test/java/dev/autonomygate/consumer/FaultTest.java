package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.autonomygate.DeniedException;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.Mode;
import dev.autonomygate.NativeHost;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Every way in which what stands around the module can fail: docs/src/spec/conformance.md. */
@Timeout(300)
class FaultTest {
    private static final long MUCH = 4L << 30;
    private static final String RECEIPT = "{\"first_seq\":7,\"last_seq\":8}";

    private final AtomicInteger ran = new AtomicInteger();
    private final FakeHost host = new FakeHost();
    private final NativeHost client = host.client();

    FaultTest() throws IOException {}

    @AfterEach
    void close() throws IOException {
        host.close();
    }

    private Guard guard() {
        return guard(Mode.ENFORCE);
    }

    private Guard guard(Mode mode) {
        return Support.patient(Support.good().mode(mode).load(), client).build();
    }

    /** Runs a tool through the guard: it must be denied, and the tool must not have run. */
    private DeniedException denied(Guard guard, Reason reason) {
        int before = ran.get();
        DeniedException denied = assertThrows(
                DeniedException.class, () -> guard.run(ToolCall.of("tool.echo"), ran::incrementAndGet), reason::toString);
        assertEquals(reason, denied.reason(), () -> String.valueOf(denied.getCause()));
        assertEquals(reason == Reason.WAL_UNAVAILABLE ? 503 : 403, denied.status());
        assertEquals(before, ran.get());
        return denied;
    }

    /** The fault is gone: the next call is allowed, and in the log. What it appends is there before this returns. */
    private void right(Guard guard) throws Exception {
        host.fault = FakeHost.NONE;
        try (Permit permit = guard.ask("tool.echo")) {
            permit.finish(Outcome.COMPLETED).get();
            assertEquals(List.of("allow", "completed"), logged(permit.auditId(), "outcome"));
        }
    }

    /** What the log says of a call, but for its facts. */
    private List<String> logged(String auditId, String attribute) {
        return List.copyOf(host.frames).stream()
                .filter(frame -> frame.get("audit_id").asText().equals(auditId))
                .filter(frame -> !frame.get("kind").asText().equals("autonomy.facts"))
                .map(frame -> frame.get("attrs").get(attribute).asText())
                .collect(Collectors.toList());
    }

    /** How often a call was sent to be written down. */
    private long sent(String auditId) {
        return List.copyOf(host.appends).stream().filter(body -> body.contains(auditId)).count();
    }

    @Test
    void hostDown() throws Exception {
        for (Mode mode : Mode.values()) {
            Guard guard = guard(mode);
            right(guard);
            host.goAway();
            denied(guard, Reason.WAL_UNAVAILABLE);
            host.comeBack();
            right(guard);
        }
        Support.withstood("host_down");
    }

    @Test
    void sourceDown() throws Exception {
        AtomicBoolean down = new AtomicBoolean(true);
        Guard guard = Guard.builder(Support.good().load())
                .source(node -> {
                    if (down.get()) {
                        throw new IllegalStateException("connection refused");
                    }
                    return client.lookUp(node);
                })
                .sink(client)
                .build();
        String auditId = denied(guard, Reason.ENROLLMENT_UNAVAILABLE).auditId();
        JsonNode facts = host.frames.get(0).get("attrs").get("facts");
        assertEquals("connection refused", facts.get("enrollment").get("why").asText());
        assertEquals(List.of("policy: allowed", Reason.ENROLLMENT_UNAVAILABLE.toString()), logged(auditId, "reason"));
        down.set(false);
        right(guard);
        Support.withstood("source_down");
    }

    @Test
    void hostSlow() throws Exception {
        Duration timeout = Duration.ofSeconds(1);
        // The first call takes longer than the others.
        right(guard());
        for (boolean slowAppend : new boolean[] {false, true}) {
            Guard.Builder builder = Support.patient(Support.good().load(), client);
            Guard guard = (slowAppend ? builder.appendTimeout(timeout) : builder.lookUpTimeout(timeout)).build();
            FakeHost.Fault slow = exchange -> {
                Thread.sleep(20_000);
                exchange.breakOff();
            };
            host.fault = slowAppend ? appends(slow) : lookUps(slow);
            long startedNs = System.nanoTime();
            denied(guard, slowAppend ? Reason.WAL_UNAVAILABLE : Reason.ENROLLMENT_UNAVAILABLE);
            long tookMs = (System.nanoTime() - startedNs) / 1_000_000;
            assertTrue(tookMs >= timeout.toMillis() && tookMs < 15_000, () -> "it took " + tookMs + " ms");
            right(guard);
        }
        Support.withstood("host_slow");
    }

    @Test
    void hostLying() throws Exception {
        List<FakeHost.Fault> lies = List.of(
                exchange -> exchange.say(200, "<html>"),
                exchange -> exchange.say(200, "{\"answer\":\"enrolled\"}"),
                exchange -> exchange.say(200, FakeHost.row("robot-8")),
                exchange -> exchange.say(500, FakeHost.row(Support.NODE)),
                half(FakeHost.row(Support.NODE)));
        Guard guard = guard();
        for (FakeHost.Fault lie : lies) {
            host.fault = lookUps(lie);
            denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
            right(guard);
        }

        // 4 GiB, which the client need not take to know that they are no answer: announced, and in two ways not.
        String piece = " ".repeat(1 << 16);
        muchIsNotTaken(guard, "content-length: " + MUCH, piece);
        muchIsNotTaken(guard, "transfer-encoding: chunked", Integer.toHexString(piece.length()) + "\r\n" + piece + "\r\n");
        muchIsNotTaken(guard, "connection: close", piece);
        Support.withstood("host_lying");
    }

    private void muchIsNotTaken(Guard guard, String header, String piece) throws Exception {
        AtomicInteger begun = new AtomicInteger();
        AtomicInteger sending = new AtomicInteger();
        AtomicLong taken = new AtomicLong();
        byte[] bytes = piece.getBytes(StandardCharsets.UTF_8);
        host.fault = lookUps(exchange -> {
            begun.incrementAndGet();
            sending.incrementAndGet();
            try {
                OutputStream body = exchange.begin(200, header, "");
                for (long sent = 0; sent < MUCH; sent += bytes.length) {
                    body.write(bytes);
                    taken.addAndGet(bytes.length);
                }
                exchange.breakOff();
            } finally {
                sending.decrementAndGet();
            }
        });
        denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
        while (sending.get() > 0) {
            Thread.sleep(10);
        }
        assertTrue(begun.get() > 0 && taken.get() < 64 << 20, () -> header + ": " + taken + " bytes were taken");
        right(guard);
    }

    @Test
    void appendLying() throws Exception {
        List<FakeHost.Fault> lies = List.of(
                exchange -> exchange.say(200, "{\"durable\":true}"),
                exchange -> exchange.say(200, "OK"),
                exchange -> exchange.say(200, "{\"first_seq\":8,\"last_seq\":7}"),
                exchange -> exchange.say(200, "{\"first_seq\":7,\"last_seq\":8"),
                exchange -> exchange.say(500, RECEIPT),
                exchange -> exchange.say(204, ""),
                half(RECEIPT));
        Guard guard = guard();
        for (FakeHost.Fault lie : lies) {
            host.fault = appends(lie);
            notWritten(guard);
            right(guard);
        }

        // Where it is sent to, it would be given a receipt.
        host.fault = exchange -> {
            if (exchange.append) {
                exchange.begin(307, "location: /moved\r\ncontent-length: 0", "");
            } else if (exchange.path.equals("/moved")) {
                exchange.say(200, RECEIPT);
            }
        };
        notWritten(guard);
        right(guard);
        Support.withstood("append_lying");
    }

    private void notWritten(Guard guard) {
        DeniedException denied = denied(guard, Reason.WAL_UNAVAILABLE);
        assertEquals(1, sent(denied.auditId()), "an append is not tried again");
    }

    @Test
    void diskFull() throws Exception {
        Guard guard = guard();
        host.fault = appends(exchange -> exchange.say(503, "{\"error\":\"the log cannot be written: no space left\"}"));
        DeniedException denied = denied(guard, Reason.WAL_UNAVAILABLE);
        assertTrue(denied.getCause().getMessage().endsWith("`503`: the log cannot be written: no space left"));
        right(guard);
        Support.withstood("disk_full");
    }

    @Test
    void factsLost() throws Exception {
        Guard guard = guard();
        right(guard);
        host.restart();
        host.appends.clear();
        right(guard);
        List<String> kinds = host.appends.stream().map(FaultTest::kinds).collect(Collectors.toList());
        assertEquals(
                List.of("[autonomy.decision]", "[autonomy.facts, autonomy.decision]", "[autonomy.action]"), kinds);
        // The serial went through as it came.
        assertTrue(host.appends.get(1).contains("\"serial\":18446744073709551615"));
        host.appends.clear();
        right(guard);
        assertEquals("[autonomy.decision]", kinds(host.appends.get(0)));
        Support.withstood("facts_lost");
    }

    private static String kinds(String append) {
        return Support.read(append).get("frames").findValuesAsText("kind").toString();
    }

    @Test
    void tokenWrong() throws Exception {
        Guard guard = guard();
        host.token = "another-token-of-32-characters-or-more";
        denied(guard, Reason.WAL_UNAVAILABLE);
        host.token = FakeHost.TOKEN;
        right(guard);
        Support.withstood("token_wrong");
    }

    @Test
    void otherAbi() throws Exception {
        byte[] other = Support.module("gate-abi-2.wasm");
        GateException e = assertThrows(GateException.class, () -> Gate.builder().module(other).load());
        assertEquals(GateException.Kind.UNSUPPORTED, e.kind());
        assertTrue(e.getMessage().startsWith("the module's ABI is `2`: this package speaks 1"), e.getMessage());
        GateException none = assertThrows(
                GateException.class, () -> Gate.builder().module(new byte[] {0, 'a', 's', 'm', 1, 0, 0, 0}).load());
        assertTrue(none.getMessage().startsWith("the module's ABI is `none`"), none.getMessage());
        right(guard());
        Support.withstood("other_abi");
    }

    @Test
    void threads() throws Exception {
        Guard guard = guard();
        Set<String> asked = ConcurrentHashMap.newKeySet();
        Callable<Void> calls = () -> {
            for (int i = 0; i < 100; i += 1) {
                String tool = "tool." + Thread.currentThread().getId() + "." + i;
                Permit permit = guard.ask(tool);
                asked.add(permit.auditId() + " " + tool);
                permit.finish(Outcome.COMPLETED).get();
            }
            return null;
        };
        ExecutorService pool = Executors.newFixedThreadPool(64);
        try {
            List<Callable<Void>> all = new ArrayList<>();
            for (int i = 0; i < 64; i += 1) {
                all.add(calls);
            }
            for (Future<Void> done : pool.invokeAll(all)) {
                done.get();
            }
        } finally {
            pool.shutdownNow();
        }
        for (String kind : List.of("autonomy.decision", "autonomy.action")) {
            List<String> found = host.frames.stream()
                    .filter(frame -> frame.get("kind").asText().equals(kind))
                    .map(frame -> frame.get("audit_id").asText() + " " + frame.get("attrs").get("tool").asText())
                    .collect(Collectors.toList());
            assertEquals(6_400, found.size());
            assertEquals(asked, Set.copyOf(found));
        }
        Support.withstood("threads");
    }

    /** The fault, on look-ups alone. */
    private static FakeHost.Fault lookUps(FakeHost.Fault fault) {
        return exchange -> {
            if (!exchange.append) {
                fault.play(exchange);
            }
        };
    }

    /** The fault, on appends alone. */
    private static FakeHost.Fault appends(FakeHost.Fault fault) {
        return exchange -> {
            if (exchange.append) {
                fault.play(exchange);
            }
        };
    }

    /** Says how long the body is, and breaks off in its midst. */
    private static FakeHost.Fault half(String body) {
        return exchange -> {
            exchange.begin(200, "content-length: " + body.length(), body.substring(0, body.length() / 2));
            exchange.breakOff();
        };
    }
}
