package dev.autonomygate.consumer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.autonomygate.DecisionSink;
import dev.autonomygate.EnrollmentSource;
import dev.autonomygate.Gate;
import dev.autonomygate.Guard;
import dev.autonomygate.Mode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** What the tests share. */
final class Support {
    static final Path ROOT = Path.of(System.getProperty("autonomy.root"));
    static final String NODE = "robot-7";
    static final ObjectMapper JSON = new ObjectMapper();

    /** The first bundle of the corpus that is accepted and declares a ref. */
    static final Good GOOD = Good.first();

    private Support() {}

    static final class Good {
        final byte[] tar;
        final String[] keys;
        final String enrollmentRef;

        private Good(byte[] tar, String[] keys, String enrollmentRef) {
            this.tar = tar;
            this.keys = keys;
            this.enrollmentRef = enrollmentRef;
        }

        private static Good first() {
            JsonNode corpus = corpus("bundles");
            for (JsonNode one : corpus.get("bundles")) {
                if (one.path("accepted").path("enrollment_ref").isTextual()) {
                    String ref = one.get("accepted").get("enrollment_ref").asText();
                    return new Good(unpack(one.get("tar")), Support.keys(corpus, one.get("keys")), ref);
                }
            }
            throw new AssertionError("the corpus has no such bundle");
        }
    }

    /** Where nothing is slow on purpose, a machine that is busy with other things must not count as a fault. */
    static <H extends EnrollmentSource & DecisionSink> Guard.Builder patient(Gate gate, H host) {
        Duration patience = Duration.ofMinutes(1);
        return Guard.builder(gate).source(host).sink(host).lookUpTimeout(patience).appendTimeout(patience);
    }

    static Gate.Builder good() {
        return Gate.builder().bundle(GOOD.tar).trustedKeys(GOOD.keys).nodeId(NODE).mode(Mode.ENFORCE);
    }

    static JsonNode corpus(String name) {
        try {
            return JSON.readTree(ROOT.resolve("tests/corpus/" + name + ".json").toFile());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A module for tests of hosts, in {@code target}. */
    static byte[] module(String name) throws IOException {
        return Files.readAllBytes(ROOT.resolve("target").resolve(name));
    }

    static String[] keys(JsonNode corpus, JsonNode names) {
        List<String> keys = new ArrayList<>();
        names.forEach(name -> keys.add(corpus.get("keys").get(name.asText()).asText()));
        return keys.toArray(String[]::new);
    }

    static byte[] unpack(JsonNode segments) {
        ByteArrayOutputStream tar = new ByteArrayOutputStream();
        for (JsonNode segment : segments) {
            tar.writeBytes(segment.isInt() ? new byte[segment.asInt()] : Base64.getDecoder().decode(segment.asText()));
        }
        return tar.toByteArray();
    }

    static JsonNode read(String json) {
        try {
            return JSON.readTree(json);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Says that a fault was played, and withstood. */
    static void withstood(String fault) {
        System.out.println("\nconformance {\"language\":\"java\",\"engine\":\"" + ConformanceTest.ENGINE + "\",\"fault\":\""
                + fault + "\"}");
    }
}
