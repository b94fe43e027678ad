package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.dylibso.chicory.runtime.ByteArrayMemory;
import com.dylibso.chicory.runtime.Instance;
import com.fasterxml.jackson.databind.JsonNode;
import dev.autonomygate.Answer;
import dev.autonomygate.Bundle;
import dev.autonomygate.Call;
import dev.autonomygate.Decision;
import dev.autonomygate.Effect;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Gate;
import dev.autonomygate.GateException;
import dev.autonomygate.Mode;
import dev.autonomygate.PolicyAnswer;
import dev.autonomygate.Reason;
import dev.autonomygate.Verdict;
import dev.autonomygate.wasm.GateModule;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.apache.tomcat.util.buf.HexUtils;
import org.junit.jupiter.api.Test;

/** The three corpora, whole: docs/src/spec/conformance.md. */
class ConformanceTest {
    static final String ENGINE = "Chicory 1.7.5, Java " + Runtime.version().feature();

    /** What was answered, of which the hash alone is kept. */
    private static final class Transcript {
        private final MessageDigest digest = sha256();
        private final long startedNs = System.nanoTime();
        private int cases;

        void line(String... fields) {
            digest.update((String.join("\t", fields) + "\n").getBytes(StandardCharsets.UTF_8));
            cases += 1;
        }

        void end(String corpus) {
            String hash = "sha256:" + HexUtils.toHexString(digest.digest());
            System.out.printf(
                    "%nconformance {\"language\":\"java\",\"engine\":\"%s\",\"corpus\":\"%s\",\"cases\":%d,"
                            + "\"transcript\":\"%s\",\"ms\":%d}%n",
                    ENGINE, corpus, cases, hash, (System.nanoTime() - startedNs) / 1_000_000);
            JsonNode want = Support.corpus("transcripts").get(corpus);
            assertEquals(want.get("cases").asInt(), cases);
            assertEquals(want.get("transcript").asText(), hash);
        }
    }

    @Test
    void signatures() {
        Instance instance = Instance.builder(GateModule.load())
                .withMachineFactory(GateModule::create)
                .withMemoryFactory(ByteArrayMemory::new)
                .build();
        Transcript transcript = new Transcript();
        for (JsonNode one : Support.corpus("signatures").get("cases")) {
            byte[] signature = HexUtils.fromHexString(one.get("signature").asText());
            byte[] signed = HexUtils.fromHexString(one.get("key").asText() + one.get("signature").asText() + one.get("message").asText());
            boolean valid = false;
            if (signature.length == 64) {
                int at = (int) instance.export("gate_input").apply(signed.length)[0];
                instance.memory().write(at, signed);
                valid = (int) instance.export("gate_verify_signature").apply(signed.length)[0] == 0;
            }
            assertEquals(one.get("valid").asBoolean(), valid, one.get("name").asText());
            transcript.line(one.get("name").asText(), valid ? "valid" : "invalid");
        }
        transcript.end("signatures");
    }

    @Test
    void bundles() {
        JsonNode corpus = Support.corpus("bundles");
        Transcript transcript = new Transcript();
        for (JsonNode one : corpus.get("bundles")) {
            String name = one.get("name").asText();
            try (Gate gate = Gate.builder()
                    .trustedKeys(Support.keys(corpus, one.get("keys")))
                    .threshold(one.get("threshold").asInt())
                    .load()) {
                String refused = "";
                try {
                    gate.loadBundle(Support.unpack(one.get("tar")));
                } catch (GateException e) {
                    refused = e.getMessage();
                }
                assertEquals(one.path("refused").asText(""), refused, name);
                assertEquals(one.has("accepted"), gate.bundle().isPresent(), name);
                if (gate.bundle().isEmpty()) {
                    transcript.line(name, "refused", refused);
                    continue;
                }
                transcript.line(name, described(gate.bundle().get(), one.get("accepted"), name));
            }
        }
        transcript.end("bundles");
    }

    private static String described(Bundle bundle, JsonNode accepted, String name) {
        assertEquals(accepted.get("digest").asText(), bundle.digest(), name);
        assertEquals(accepted.get("enrollment_ref").asText("-"), bundle.enrollmentRef().orElse("-"), name);
        assertEquals(accepted.get("files").size(), bundle.files().size(), name);
        List<String> fields = new ArrayList<>(List.of(
                "accepted",
                bundle.digest(),
                bundle.name(),
                bundle.version(),
                bundle.channel(),
                bundle.policyVersion(),
                bundle.schemaVersion(),
                bundle.policyRef().orElse("-"),
                bundle.enrollmentRef().orElse("-"),
                String.join(",", bundle.signers())));
        for (Bundle.File file : bundle.files()) {
            assertEquals(file.digest(), "sha256:" + HexUtils.toHexString(sha256().digest(file.bytes())), name);
            fields.add(file.path() + "=" + file.digest() + "@" + file.offset() + "+" + file.size());
        }
        return String.join("\t", fields);
    }

    @Test
    void decisions() {
        JsonNode corpus = Support.corpus("decision");
        List<List<JsonNode>> dimensions = new ArrayList<>();
        corpus.get("dimensions").forEach(dimension -> dimensions.add(list(dimension.get("values"))));
        List<JsonNode> policies = dimensions.get(1);
        int[] expected = expected(corpus);
        int stride = expected.length / dimensions.get(0).size() / policies.size();
        Transcript transcript = new Transcript();
        int mode = 0;
        for (JsonNode modeValue : dimensions.get(0)) {
            int gateAt = 0;
            for (JsonNode bundle : dimensions.get(2)) {
                for (JsonNode node : dimensions.get(3)) {
                    try (Gate gate = load(corpus.get("settings"), modeValue, bundle, node)) {
                        int rows = rows(dimensions);
                        for (int row = 0; row < rows; row += 1) {
                            tell(gate, dimensions, row);
                            long now = corpus.get("settings").get("now_ms").asLong();
                            Verdict verdict = gate.verdict(now);
                            for (int policy = 0; policy < policies.size(); policy += 1) {
                                int number = (mode * policies.size() + policy) * stride + gateAt * rows + row;
                                Decision decision = gate.decide(call(corpus.get("settings"), policies.get(policy)));
                                check(corpus.get("outcomes").get(expected[number]), verdict, decision, number);
                                transcript.line(number(verdict), output(decision));
                            }
                        }
                    }
                    gateAt += 1;
                }
            }
            mode += 1;
        }
        assertEquals(corpus.get("cases").asInt(), transcript.cases);
        transcript.end("decision");
    }

    private static int[] expected(JsonNode corpus) {
        int[] expected = new int[corpus.get("cases").asInt()];
        int at = 0;
        for (JsonNode run : corpus.get("expected")) {
            for (int left = run.get(1).asInt(); left > 0; left -= 1) {
                expected[at++] = run.get(0).asInt();
            }
        }
        assertEquals(expected.length, at);
        return expected;
    }

    private static int rows(List<List<JsonNode>> dimensions) {
        return dimensions.subList(4, 8).stream().mapToInt(List::size).reduce(1, (a, b) -> a * b);
    }

    private static Gate load(JsonNode settings, JsonNode mode, JsonNode bundle, JsonNode node) {
        Gate gate = Gate.builder()
                .mode(Mode.parse(mode.get("mode").asText()))
                .nodeId(node.get("node_id").textValue())
                .trustedKeys(texts(settings.get("bundle_keys")))
                .threshold(settings.get("bundle_threshold").asInt())
                .leaseKeys(texts(settings.get("lease_keys")))
                .leaseThreshold(settings.get("lease_threshold").asInt())
                .maxStaleness(Duration.ofMillis(settings.get("max_staleness_ms").asLong()))
                .maxSkew(Duration.ofMillis(settings.get("max_skew_ms").asLong()))
                .load();
        if (!bundle.get("tar").isNull()) {
            try {
                gate.loadBundle(Support.unpack(bundle.get("tar")));
            } catch (GateException e) {
                assertEquals(GateException.Kind.REFUSED, e.kind());
            }
        }
        return gate;
    }

    /** Tells the answer of a row, the last of whose dimensions turns fastest. */
    private static void tell(Gate gate, List<List<JsonNode>> dimensions, int row) {
        int[] at = new int[4];
        int rest = row;
        for (int dimension = 3; dimension >= 0; dimension -= 1) {
            int size = dimensions.get(4 + dimension).size();
            at[dimension] = rest % size;
            rest /= size;
        }
        JsonNode answer = dimensions.get(4).get(at[0]);
        int lease = row % (rows(dimensions) / dimensions.get(4).size());
        if (lease == 0 && answer.path("before").isTextual()) {
            take(gate, answer.get("before").asText());
        }
        switch (answer.get("kind").asText()) {
            case "unavailable":
                gate.setEnrollment(Answer.unavailable(answer.get("why").asText()));
                break;
            case "not_enrolled":
                gate.setEnrollment(Answer.notEnrolled(answer.get("observed_at_ms").asLong()));
                break;
            case "row":
                gate.setEnrollment(Answer.enrolled(
                        Enrollment.of(Support.NODE, dimensions.get(5).get(at[1]).get("enrollment_ref").asText())
                                .withStatus(dimensions.get(6).get(at[2]).get("status").asText())
                                .withRolloutState(dimensions.get(7).get(at[3]).get("rollout_state").asText())
                                .withSerial(7),
                        answer.get("observed_at_ms").asLong()));
                break;
            case "lease":
                take(gate, answer.get("leases").get(lease).asText());
                break;
            default:
                throw new AssertionError(answer);
        }
    }

    /** Whether the lease holds or not: what the gate then finds is in the corpus. */
    private static void take(Gate gate, String lease) {
        try {
            gate.setEnrollment(Answer.lease(lease));
        } catch (GateException e) {
            assertEquals(GateException.Kind.REFUSED, e.kind());
        }
    }

    private static Call call(JsonNode settings, JsonNode policy) {
        return Call.of(settings.get("tool").asText())
                .withPolicy(PolicyAnswer.of(Reason.of(policy.get("reason").asInt()).orElseThrow()))
                .withAuditId(settings.get("audit_id").asText())
                .withNowMs(settings.get("now_ms").asLong());
    }

    private static void check(JsonNode want, Verdict verdict, Decision decision, int number) {
        assertEquals(want.get("verdict").asText(), number(verdict), () -> "case " + number);
        int effect = decision.reason().map(Reason::number).orElse(0);
        assertEquals(want.get("effect").asInt(), effect, () -> "case " + number);
        assertEquals(effect == 0, decision.effect() == Effect.ALLOW, () -> "case " + number);
        // The frame of the facts stands first.
        String frames = decision.frames().json();
        int decided = -1;
        for (JsonNode frame : want.get("frames")) {
            decided = frames.indexOf("{\"layer\":\"" + frame.get("layer").asText() + "\",", decided + 1);
            int end = frames.indexOf("\"facts\":", decided);
            assertTrue(decided >= 0 && end > decided, () -> "case " + number);
            String attrs = frames.substring(decided, end);
            assertTrue(attrs.contains("\"outcome\":\"" + frame.get("outcome").asText() + "\",\"reason\":\""
                    + frame.get("reason").asText() + "\","), () -> "case " + number);
            assertTrue(attrs.contains("\"enforced\":" + frame.get("enforced").asBoolean()), () -> "case " + number);
        }
        assertEquals(-1, frames.indexOf("{\"layer\":", decided + 1), () -> "case " + number);
    }

    private static String number(Verdict verdict) {
        return verdict.reason().map(reason -> Integer.toString(reason.number())).orElse("0");
    }

    /** The output again, from what it was read into. */
    private static String output(Decision decision) {
        return "{\"effect\":" + (decision.effect() == Effect.ALLOW ? "\"allow\"" : "\"deny\"")
                + ",\"reason\":" + decision.reason().map(reason -> "\"" + reason + "\"").orElse("null")
                + ",\"verdict\":" + decision.verdict().map(verdict -> "\"" + verdict + "\"").orElse("null")
                + ",\"facts\":\"" + decision.facts().orElseThrow()
                + "\",\"frames\":" + decision.frames().json() + "}";
    }

    private static String[] texts(JsonNode list) {
        return list(list).stream().map(JsonNode::asText).toArray(String[]::new);
    }

    private static List<JsonNode> list(JsonNode nodes) {
        return StreamSupport.stream(nodes.spliterator(), false).collect(Collectors.toList());
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }
}
