package dev.autonomygate.consumer;

import com.fasterxml.jackson.databind.JsonNode;
import dev.autonomygate.NativeHost;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A small server of the native host's contract, which can be told to fail. It speaks HTTP/1.1 itself: no server lets itself be
 * told to lie in each of these ways, and Java 11 as it is tested has none.
 */
final class FakeHost implements AutoCloseable {
    /** Answers in the host's place, or breaks off; where it does neither, the host answers. */
    interface Fault {
        void play(Exchange exchange) throws IOException, InterruptedException;
    }

    static final String TOKEN = "a-token-of-32-characters-or-more";
    static final Fault NONE = exchange -> {};

    final List<JsonNode> frames = Collections.synchronizedList(new ArrayList<>());
    final List<String> appends = Collections.synchronizedList(new ArrayList<>());
    volatile Fault fault = NONE;
    volatile String token = TOKEN;
    private final Set<String> facts = Collections.synchronizedSet(new HashSet<>());
    private final ExecutorService executor = Executors.newCachedThreadPool();
    private final Set<Socket> connections = ConcurrentHashMap.newKeySet();
    /** Holds the port and never listens: while the host is away, nobody else gets it. */
    private final Socket port = new Socket();

    private ServerSocket listener;

    FakeHost() throws IOException {
        port.setReuseAddress(true);
        port.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
        comeBack();
    }

    /** Listens again, where it was. */
    void comeBack() throws IOException {
        ServerSocket listening = new ServerSocket();
        listening.setReuseAddress(true);
        listening.bind(port.getLocalSocketAddress(), 1_000);
        executor.execute(() -> accept(listening));
        listener = listening;
    }

    /** Cuts every connection and listens no more. */
    void goAway() throws IOException {
        listener.close();
        for (Socket connection : connections) {
            connection.close();
        }
    }

    /** As after a restart: what was written before counts no more. */
    void restart() {
        facts.clear();
    }

    NativeHost client() {
        return NativeHost.withToken("http://127.0.0.1:" + port.getLocalPort(), TOKEN);
    }

    @Override
    public void close() throws IOException {
        goAway();
        port.close();
        executor.shutdownNow();
    }

    static String row(String node) {
        return "{\"answer\":\"enrolled\",\"enrollment\":{\"node_id\":\"" + node + "\",\"enrollment_ref\":\""
                + Support.GOOD.enrollmentRef + "\",\"status\":\"active\",\"rollout_state\":\"<none>\","
                + "\"serial\":18446744073709551615},\"observed_at_ms\":" + System.currentTimeMillis() + "}";
    }

    private void accept(ServerSocket listening) {
        try {
            while (true) {
                Socket connection = listening.accept();
                connections.add(connection);
                if (listening.isClosed()) {
                    // It may have come too late to be cut.
                    connection.close();
                }
                executor.execute(() -> serve(connection));
            }
        } catch (IOException e) {
            // It went away.
        }
    }

    private void serve(Socket connection) {
        try (connection) {
            connection.setTcpNoDelay(true);
            InputStream in = new BufferedInputStream(connection.getInputStream());
            while (!connection.isClosed()) {
                answer(new Exchange(connection, in));
            }
        } catch (IOException | InterruptedException e) {
            // It was cut, or the client has gone.
        } finally {
            connections.remove(connection);
        }
    }

    private void answer(Exchange exchange) throws IOException, InterruptedException {
        if (exchange.append) {
            appends.add(exchange.body);
        }
        fault.play(exchange);
        if (exchange.over) {
            return;
        }
        if (!("Bearer " + token).equals(exchange.headers.get("authorization"))) {
            exchange.say(401, "{\"error\":\"the token is wrong\"}");
        } else if (exchange.append) {
            take(exchange);
        } else if (exchange.path.equals("/v1/enrollments/" + Support.NODE)) {
            exchange.say(200, row(Support.NODE));
        } else if (exchange.path.equals("/v1/health")) {
            exchange.say(200, "{\"status\":\"ok\",\"version\":\"0.1.0\"}");
        } else {
            exchange.say(404, "{\"error\":\"no such path\"}");
        }
    }

    private void take(Exchange exchange) throws IOException {
        JsonNode batch = Support.read(exchange.body).get("frames");
        for (JsonNode frame : batch) {
            JsonNode attrs = frame.get("attrs");
            if (frame.get("kind").asText().equals("autonomy.facts")) {
                facts.add(attrs.get("id").asText());
            } else if (attrs.has("facts") && !facts.contains(attrs.get("facts").asText())) {
                exchange.say(409, "{\"error\":\"facts are not in the log\"}");
                return;
            }
        }
        int last;
        synchronized (frames) {
            batch.forEach(frames::add);
            last = frames.size();
        }
        exchange.say(200, "{\"first_seq\":" + (last - batch.size() + 1) + ",\"last_seq\":" + last + "}");
    }

    /** A request, and how it is answered. */
    static final class Exchange {
        final String path;
        final boolean append;
        final String body;
        private final Map<String, String> headers = new HashMap<>();
        private final Socket connection;
        /** Whether an answer was begun, or the connection broken off. */
        private boolean over;

        private Exchange(Socket connection, InputStream in) throws IOException {
            this.connection = connection;
            path = line(in).split(" ")[1];
            append = path.equals("/v1/frames");
            for (String header = line(in); !header.isEmpty(); header = line(in)) {
                String[] parts = header.split(": *", 2);
                headers.put(parts[0].toLowerCase(Locale.ROOT), parts[1]);
            }
            int length = Integer.parseInt(headers.getOrDefault("content-length", "0"));
            body = new String(in.readNBytes(length), StandardCharsets.UTF_8);
        }

        /** An answer, whole. */
        void say(int status, String body) throws IOException {
            begin(status, "content-length: " + body.getBytes(StandardCharsets.UTF_8).length, body);
        }

        /** The head of an answer, with one header, and the first of its body; the rest is for the caller to send. */
        OutputStream begin(int status, String header, String first) throws IOException {
            over = true;
            OutputStream out = connection.getOutputStream();
            // In one piece, for the second would wait for the receipt of the first.
            out.write(("HTTP/1.1 " + status + " \r\n" + header + "\r\n\r\n" + first).getBytes(StandardCharsets.UTF_8));
            return out;
        }

        void breakOff() throws IOException {
            over = true;
            connection.close();
        }

        private static String line(InputStream in) throws IOException {
            ByteArrayOutputStream line = new ByteArrayOutputStream();
            for (int next = in.read(); next != '\n'; next = in.read()) {
                if (next < 0) {
                    throw new EOFException();
                }
                line.write(next);
            }
            return line.toString(StandardCharsets.ISO_8859_1).strip();
        }
    }
}
