package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.DeniedException;
import dev.autonomygate.Effect;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Frame;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.Mode;
import dev.autonomygate.NativeHost;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.Reason;
import dev.autonomygate.ToolCall;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Every way in which what stands around the module can fail: docs/src/spec/conformance.md. */
@Timeout(300)
class FaultTest {
    private final AtomicInteger ran = new AtomicInteger();

    private static Guard guard(NativeHost host) {
        return Support.patient(Support.good().load(), host).build();
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

    private void allowed(Guard guard) throws Exception {
        int before = ran.get();
        guard.run(ToolCall.of("tool.echo"), ran::incrementAndGet);
        assertEquals(before + 1, ran.get());
    }

    @Test
    void hostDown() throws Exception {
        // It holds a port, and does not listen.
        try (Socket socket = new Socket()) {
            socket.bind(new InetSocketAddress("127.0.0.1", 0));
            NativeHost host = NativeHost.withToken("http://127.0.0.1:" + socket.getLocalPort(), FakeHost.TOKEN);
            for (Mode mode : Mode.values()) {
                denied(Support.patient(Support.good().mode(mode).load(), host).build(), Reason.WAL_UNAVAILABLE);
            }
        }
        Support.withstood("host_down");
    }

    @Test
    void sourceDown() throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        AtomicInteger asked = new AtomicInteger();
        Guard guard = Guard.builder(Support.good().load())
                .source(node -> {
                    if (asked.getAndIncrement() == 0) {
                        throw new IllegalStateException("connection refused");
                    }
                    return host.lookUp(node);
                })
                .sink(host)
                .build();
        String auditId = denied(guard, Reason.ENROLLMENT_UNAVAILABLE).auditId();
        List<Frame> frames = host.frames();
        assertTrue(frames.get(0).attrs().contains("\"why\":\"connection refused\""));
        assertTrue(frames.get(2).attrs().contains(Reason.ENROLLMENT_UNAVAILABLE.toString()));
        assertTrue(frames.stream().allMatch(frame -> frame.auditId().equals(auditId)));
        allowed(guard);
        Support.withstood("source_down");
    }

    @Test
    void hostSlow() throws Exception {
        try (FakeHost host = new FakeHost()) {
            Duration timeout = Duration.ofSeconds(1);
            // The first call takes longer than the others.
            allowed(guard(host.client()));
            for (boolean slowAppend : new boolean[] {false, true}) {
                Guard.Builder builder = Support.patient(Support.good().load(), host.client());
                Guard guard = (slowAppend ? builder.appendTimeout(timeout) : builder.lookUpTimeout(timeout)).build();
                host.fault = (exchange, append) -> {
                    if (append == slowAppend) {
                        Thread.sleep(20_000);
                    }
                    return append == slowAppend;
                };
                long startedNs = System.nanoTime();
                denied(guard, slowAppend ? Reason.WAL_UNAVAILABLE : Reason.ENROLLMENT_UNAVAILABLE);
                long tookMs = (System.nanoTime() - startedNs) / 1_000_000;
                assertTrue(tookMs >= timeout.toMillis() && tookMs < 15_000, () -> "it took " + tookMs + " ms");
                host.fault = (exchange, append) -> false;
                allowed(guard);
            }
        }
        Support.withstood("host_slow");
    }

    @Test
    void hostLying() throws Exception {
        List<FakeHost.Fault> lies = List.of(
                lie(false, 200, "<html>"),
                lie(false, 200, "{\"answer\":\"enrolled\"}"),
                lie(false, 200, FakeHost.row("robot-8")),
                lie(false, 500, FakeHost.row(Support.NODE)),
                half(false, FakeHost.row(Support.NODE)),
                (exchange, append) -> {
                    if (append) {
                        return false;
                    }
                    exchange.sendResponseHeaders(200, 4L << 30);
                    try (OutputStream body = exchange.getResponseBody()) {
                        byte[] much = new byte[1 << 16];
                        for (long sent = 0; sent < 4L << 30; sent += much.length) {
                            body.write(much);
                        }
                    }
                    return true;
                });
        try (FakeHost host = new FakeHost()) {
            Guard guard = guard(host.client());
            for (FakeHost.Fault lie : lies) {
                host.fault = lie;
                denied(guard, Reason.ENROLLMENT_UNAVAILABLE);
                host.fault = (exchange, append) -> false;
                allowed(guard);
            }
        }
        Support.withstood("host_lying");
    }

    @Test
    void appendLying() throws Exception {
        List<FakeHost.Fault> lies = List.of(
                lie(true, 200, "{\"durable\":true}"),
                lie(true, 200, "OK"),
                lie(true, 200, "{\"first_seq\":8,\"last_seq\":7}"),
                lie(true, 200, "{\"first_seq\":7,\"last_seq\":8"),
                lie(true, 500, "{\"first_seq\":7,\"last_seq\":8}"),
                lie(true, 204, ""),
                (exchange, append) -> {
                    if (append) {
                        exchange.getResponseHeaders().set("location", "/v1/health");
                        exchange.sendResponseHeaders(307, -1);
                    }
                    return append;
                },
                half(true, "{\"first_seq\":7,\"last_seq\":8}"));
        try (FakeHost host = new FakeHost()) {
            Guard guard = guard(host.client());
            for (FakeHost.Fault lie : lies) {
                host.fault = lie;
                int before = host.appends.size();
                denied(guard, Reason.WAL_UNAVAILABLE);
                assertEquals(before + 1, host.appends.size(), "an append is not tried again");
                host.fault = (exchange, append) -> false;
                try (Permit permit = guard.ask("tool.echo")) {
                    permit.finish(Outcome.COMPLETED).get();
                }
            }
        }
        Support.withstood("append_lying");
    }

    @Test
    void diskFull() throws Exception {
        try (FakeHost host = new FakeHost()) {
            Guard guard = guard(host.client());
            host.fault = lie(true, 503, "{\"error\":\"the log cannot be written: no space left\"}");
            DeniedException denied = denied(guard, Reason.WAL_UNAVAILABLE);
            assertTrue(denied.getCause().getMessage().endsWith("`503`: the log cannot be written: no space left"));
            host.fault = (exchange, append) -> false;
            allowed(guard);
        }
        Support.withstood("disk_full");
    }

    @Test
    void factsLost() throws Exception {
        try (FakeHost host = new FakeHost()) {
            Guard guard = guard(host.client());
            guard.ask("tool.echo");
            host.restart();
            int before = host.appends.size();
            guard.ask("tool.echo");
            assertEquals(before + 2, host.appends.size());
            assertTrue(host.appends.get(before + 1).startsWith("{\"frames\":[{\"kind\":\"autonomy.facts\""));
            guard.ask("tool.echo");
            assertEquals(before + 3, host.appends.size());
            // The serial went through as it came.
            assertTrue(host.appends.get(before + 1).contains("\"serial\":18446744073709551615"));
        }
        Support.withstood("facts_lost");
    }

    @Test
    void tokenWrong() throws Exception {
        try (FakeHost host = new FakeHost()) {
            denied(guard(NativeHost.withToken(host.url(), "wrong")), Reason.WAL_UNAVAILABLE);
            allowed(guard(host.client()));
        }
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
        assertEquals(Effect.ALLOW, Gate.builder().load().decide("tool.echo").effect());
        Support.withstood("other_abi");
    }

    @Test
    void threads() throws Exception {
        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host).build();
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
            List<String> found = host.frames().stream()
                    .filter(frame -> frame.kind().equals(kind))
                    .map(frame -> frame.auditId() + " " + Support.read(frame.attrs()).get("tool").asText())
                    .collect(Collectors.toList());
            assertEquals(6_400, found.size());
            assertEquals(asked, Set.copyOf(found));
        }
        Support.withstood("threads");
    }

    private static FakeHost.Fault lie(boolean onAppend, int status, String body) {
        return (exchange, append) -> {
            if (append == onAppend) {
                FakeHost.say(exchange, status, body);
            }
            return append == onAppend;
        };
    }

    /** Says how long the body is, and breaks off in its midst. */
    private static FakeHost.Fault half(boolean onAppend, String body) {
        return (exchange, append) -> {
            if (append == onAppend) {
                exchange.sendResponseHeaders(200, body.length());
                exchange.getResponseBody().write(body.substring(0, body.length() / 2).getBytes());
                exchange.getResponseBody().flush();
            }
            return append == onAppend;
        };
    }
}
