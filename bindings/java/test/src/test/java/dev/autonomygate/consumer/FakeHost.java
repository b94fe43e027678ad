package dev.autonomygate.consumer;

import com.fasterxml.jackson.databind.JsonNode;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.autonomygate.NativeHost;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** A small server of the native host's contract, which can be told to fail. */
final class FakeHost implements AutoCloseable {
    /** Answers in the host's place. */
    interface Fault {
        /** Whether it answered. */
        boolean play(HttpExchange exchange, boolean append) throws Exception;
    }

    static final String TOKEN = "a-token-of-32-characters-or-more";

    final List<JsonNode> frames = Collections.synchronizedList(new ArrayList<>());
    final List<String> appends = Collections.synchronizedList(new ArrayList<>());
    volatile Fault fault = (exchange, append) -> false;
    private final Set<String> facts = Collections.synchronizedSet(new HashSet<>());
    private final ExecutorService executor = Executors.newCachedThreadPool();
    private final HttpServer server;

    FakeHost() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", this::answer);
        server.setExecutor(executor);
        server.start();
    }

    NativeHost client() {
        return NativeHost.withToken(url(), TOKEN);
    }

    String url() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    /** As after a restart: what was written before counts no more. */
    void restart() {
        facts.clear();
    }

    static void say(HttpExchange exchange, int status, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    @Override
    public void close() {
        server.stop(0);
        executor.shutdownNow();
    }

    private void answer(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        boolean append = path.equals("/v1/frames");
        if (append) {
            appends.add(body);
        }
        try {
            if (fault.play(exchange, append)) {
                exchange.close();
                return;
            }
        } catch (Exception e) {
            exchange.close();
            return;
        }
        if (!("Bearer " + TOKEN).equals(exchange.getRequestHeaders().getFirst("authorization"))) {
            say(exchange, 401, "{\"error\":\"the token is wrong\"}");
        } else if (append) {
            take(exchange, Support.read(body).get("frames"));
        } else if (path.equals("/v1/enrollments/" + Support.NODE)) {
            say(exchange, 200, row(Support.NODE));
        } else if (path.equals("/v1/health")) {
            say(exchange, 200, "{\"status\":\"ok\",\"version\":\"0.1.0\"}");
        } else {
            say(exchange, 404, "{\"error\":\"no such path\"}");
        }
    }

    static String row(String node) {
        return "{\"answer\":\"enrolled\",\"enrollment\":{\"node_id\":\"" + node + "\",\"enrollment_ref\":\""
                + Support.GOOD.enrollmentRef + "\",\"status\":\"active\",\"rollout_state\":\"<none>\","
                + "\"serial\":18446744073709551615},\"observed_at_ms\":" + System.currentTimeMillis() + "}";
    }

    private void take(HttpExchange exchange, JsonNode batch) throws IOException {
        for (JsonNode frame : batch) {
            JsonNode attrs = frame.get("attrs");
            if (frame.get("kind").asText().equals("autonomy.facts")) {
                facts.add(attrs.get("id").asText());
            } else if (attrs.has("facts") && !facts.contains(attrs.get("facts").asText())) {
                say(exchange, 409, "{\"error\":\"facts are not in the log\"}");
                return;
            }
        }
        int last;
        synchronized (frames) {
            batch.forEach(frames::add);
            last = frames.size();
        }
        say(exchange, 200, "{\"first_seq\":" + (last - batch.size() + 1) + ",\"last_seq\":" + last + "}");
    }
}
