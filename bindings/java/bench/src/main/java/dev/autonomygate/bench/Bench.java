package dev.autonomygate.bench;

import com.cedarpolicy.BasicAuthorizationEngine;
import com.cedarpolicy.model.AuthorizationRequest;
import com.cedarpolicy.model.Context;
import com.cedarpolicy.model.entity.Entities;
import com.cedarpolicy.model.policy.PolicySet;
import com.cedarpolicy.value.EntityUID;
import com.cedarpolicy.value.PrimString;
import com.cedarpolicy.value.Value;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.autonomygate.Answer;
import dev.autonomygate.Call;
import dev.autonomygate.Effect;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Gate;
import dev.autonomygate.Guard;
import dev.autonomygate.Mode;
import dev.autonomygate.NativeHost;
import dev.autonomygate.PolicyAnswer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What a decision costs, beside Cedar on the same question: docs/src/spec/conformance.md. */
final class Bench {
    private static final String ENGINE = "Chicory 1.7.5, compiled at build time";
    private static final String PEER = "cedar-java 4.10.0";
    private static final String NODE = "robot-7";
    /** Processes. */
    private static final int LOADS = 20;
    private static final Pattern ADDRESS = Pattern.compile("127\\.0\\.0\\.1:\\d+");

    private interface Measured {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        JsonNode corpus = new ObjectMapper().readTree(Path.of(args[0], "tests/corpus/bundles.json").toFile());
        JsonNode good = null;
        for (JsonNode one : corpus.get("bundles")) {
            good = good == null && one.has("accepted") ? one : good;
        }
        byte[] tar = unpack(good.get("tar"));
        String key = corpus.get("keys").get(good.get("keys").get(0).asText()).asText();
        String ref = good.get("accepted").get("enrollment_ref").asText();

        long startedNs = System.nanoTime();
        Gate gate = Gate.builder().bundle(tar).trustedKeys(key).nodeId(NODE).mode(Mode.ENFORCE).load();
        long loadedNs = System.nanoTime() - startedNs;
        if (args.length > 1) {
            System.out.println(loadedNs);
            return;
        }
        loads(args[0]);

        long nowMs = System.currentTimeMillis();
        gate.setEnrollment(Answer.enrolled(Enrollment.of(NODE, ref), nowMs));
        // Its clock stands: a benchmark takes longer than an answer counts.
        Call call = Call.of("tool.echo").withNowMs(nowMs);
        String facts = gate.decide(call).facts().orElseThrow();
        List<Call> logged = IntStream.range(0, 64)
                .mapToObj(at -> Call.of("tool." + at).withNowMs(nowMs).withFactsLogged(facts))
                .collect(Collectors.toList());
        require(gate.decide(logged.get(0)).effect() == Effect.ALLOW);
        int[] asked = {0};
        measure(ENGINE, "verdict", 200_000, 3_000, 100, () -> gate.verdict(nowMs));
        measure(ENGINE, "decide", 50_000, 20_000, 1, () -> gate.decide(logged.get(asked[0]++ % logged.size())));
        Iterator<Call> first = IntStream.range(0, 70_000)
                .mapToObj(at -> logged.get(0).withPolicy(PolicyAnswer.ALLOWED.withRef("fleet@" + at)))
                .collect(Collectors.toList())
                .iterator();
        measure(ENGINE, "decide_first", 50_000, 20_000, 1, () -> gate.decide(first.next()));
        durable(Path.of(System.getenv("AUTONOMY")), gate, ref);
        peer(ref);
    }

    /** Loads a gate in processes that have loaded none before. */
    private static void loads(String root) throws Exception {
        List<String> command = List.of(
                ProcessHandle.current().info().command().orElseThrow(),
                "-classpath", System.getProperty("java.class.path"), Bench.class.getName(), root, "load");
        long[] took = new long[LOADS];
        for (int at = 0; at < LOADS; at += 1) {
            Process one = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            took[at] = Long.parseLong(new String(one.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip());
        }
        report(ENGINE, "load", took, LOADS);
    }

    /** A call from the look-up to the durable frame, through the native host. */
    private static void durable(Path autonomy, Gate gate, String ref) throws Exception {
        Path home = Files.createTempDirectory("autonomy-bench");
        Path token = home.resolve("host.token");
        run(autonomy, home, "host", "token", "--out", token.toString()).waitFor();
        run(autonomy, home, "node", "enroll", "--node-id", NODE, "--enrollment-ref", ref).waitFor();
        Process host = run(autonomy, home, "host", "serve", "--listen", "127.0.0.1:0", "--token-file", token.toString());
        try {
            Guard guard = Guard.of(gate, NativeHost.of("http://" + address(host, home.resolve("log")), token));
            measure(ENGINE, "decide_durable", 200, 1_000, 1, () -> guard.ask("tool.echo"));
        } finally {
            host.destroy();
            host.waitFor();
        }
    }

    /** Is the node enrolled, active, its ref equal and its rollout state one of four? */
    private static void peer(String ref) throws Exception {
        PolicySet policies = PolicySet.parsePolicies("permit(principal, action == Action::\"tool.echo\", resource) when {"
                + " context.status == \"active\" && context.enrollment_ref == \"" + ref + "\""
                + " && [\"<none>\", \"pending\", \"acknowledged\", \"active\"].contains(context.rollout_state) };");
        policies.cache();
        Map<String, Value> row = Map.of(
                "status", new PrimString("active"),
                "enrollment_ref", new PrimString(ref),
                "rollout_state", new PrimString("<none>"));
        AuthorizationRequest request = new AuthorizationRequest(
                uid("Node::\"" + NODE + "\""), uid("Action::\"tool.echo\""), uid("Tool::\"tool.echo\""), new Context(row));
        BasicAuthorizationEngine engine = new BasicAuthorizationEngine();
        Entities entities = new Entities();
        require(engine.isAuthorized(request, policies, entities).success.orElseThrow().isAllowed());
        measure(PEER, "decide", 5_000, 5_000, 1, () -> engine.isAuthorized(request, policies, entities));
    }

    private static EntityUID uid(String text) {
        return EntityUID.parse(text).orElseThrow();
    }

    private static void measure(String engine, String what, int warm, int samples, int each, Measured measured)
            throws Exception {
        for (int i = 0; i < warm; i += 1) {
            measured.run();
        }
        long[] took = new long[samples];
        for (int at = 0; at < samples; at += 1) {
            long fromNs = System.nanoTime();
            for (int i = 0; i < each; i += 1) {
                measured.run();
            }
            took[at] = (System.nanoTime() - fromNs) / each;
        }
        report(engine, what, took, (long) samples * each);
    }

    private static void report(String engine, String what, long[] took, long calls) {
        Arrays.sort(took);
        System.out.printf(
                "%nbench {\"language\":\"java\",\"engine\":\"%s\",\"what\":\"%s\",\"p50_ns\":%d,\"p95_ns\":%d,\"p99_ns\":%d,"
                        + "\"calls\":%d}%n",
                engine, what, at(took, 50), at(took, 95), at(took, 99), calls);
    }

    private static long at(long[] sorted, int percent) {
        return sorted[Math.min(sorted.length - 1, sorted.length * percent / 100)];
    }

    private static Process run(Path autonomy, Path home, String... arguments) throws IOException {
        List<String> command = new ArrayList<>(List.of(autonomy.toString(), "--home", home.toString()));
        command.addAll(List.of(arguments));
        return new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(home.resolve("log").toFile()).start();
    }

    private static String address(Process host, Path log) throws IOException, InterruptedException {
        for (int tries = 0; tries < 600 && host.isAlive(); tries += 1) {
            Matcher found = ADDRESS.matcher(Files.readString(log));
            if (found.find()) {
                return found.group();
            }
            Thread.sleep(50);
        }
        throw new IOException("the host does not start: " + Files.readString(log));
    }

    private static byte[] unpack(JsonNode segments) {
        ByteArrayOutputStream tar = new ByteArrayOutputStream();
        for (JsonNode segment : segments) {
            tar.writeBytes(segment.isInt() ? new byte[segment.asInt()] : Base64.getDecoder().decode(segment.asText()));
        }
        return tar.toByteArray();
    }

    private static void require(boolean holds) {
        if (!holds) {
            throw new AssertionError("what is measured does not say yes");
        }
    }
}
