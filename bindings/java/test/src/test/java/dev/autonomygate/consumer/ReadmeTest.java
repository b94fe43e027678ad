package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What stands in the README and the examples, in an empty directory with the jars that a user gets. */
class ReadmeTest {
    private static final Path BINDING = Support.ROOT.resolve("bindings/java");

    @TempDir
    Path empty;

    @Test
    void theFirstLinesWorkAsWritten() throws Exception {
        write("Arm.java", block("class Arm"));
        Process run = process("Arm.java").redirectErrorStream(true).start();
        String said = new String(run.getInputStream().readAllBytes());
        assertTrue(
                said.startsWith("Exception in thread \"main\" dev.autonomygate.DeniedException:"
                        + " the call is denied: attestation: bundle_unverified\n"),
                said);
        assertEquals(1, run.waitFor());
    }

    @Test
    void aNodeWorksAsWritten() throws Exception {
        try (Host host = new Host(Files.createDirectory(empty.resolve("home")))) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            Files.copy(host.token, empty.resolve("host.token"), java.nio.file.StandardCopyOption.COPY_ATTRIBUTES);
            bundle();
            write("Node.java", block("class Node").replace("http://127.0.0.1:7778", host.url));
            assertEquals("", java("Node.java"));
            host.autonomy("node", "revoke", "--node-id", Support.NODE);
            assertTrue(java("Node.java").startsWith("403 {\"decision\":\"deny\",\"reason\":\"attestation: enrollment_revoked\""));
        }
    }

    @Test
    void theExampleGatesAnEndpoint() throws Exception {
        try (Host host = new Host(Files.createDirectory(empty.resolve("home")))) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            Files.copy(host.token, empty.resolve("host.token"), java.nio.file.StandardCopyOption.COPY_ATTRIBUTES);
            bundle();
            write("Server.java", Files.readString(BINDING.resolve("examples/Server.java")));
            Process server = process("Server.java", host.url).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            try {
                String url = new BufferedReader(new InputStreamReader(server.getInputStream())).readLine();
                HttpResponse<String> moved = post(url);
                assertEquals(200, moved.statusCode());
                host.autonomy("node", "revoke", "--node-id", Support.NODE);
                HttpResponse<String> denied = post(url);
                assertEquals(403, denied.statusCode());
                String auditId = Support.read(denied.body()).get("audit_id").asText();
                assertTrue(host.autonomy("audit", "get", auditId).contains("attestation: enrollment_revoked"));
            } finally {
                server.destroy();
            }
        }
    }

    private static HttpResponse<String> post(String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).POST(HttpRequest.BodyPublishers.noBody()).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    private void bundle() throws IOException {
        Files.write(empty.resolve("bundle.tar"), Support.GOOD.tar);
        write("release.pub.pem", Support.GOOD.keys[0]);
    }

    private void write(String name, String text) throws IOException {
        Files.writeString(empty.resolve(name), text);
    }

    /** The block of the README that has these words. */
    private static String block(String words) throws IOException {
        Matcher block = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL)
                .matcher(Files.readString(BINDING.resolve("README.md")));
        while (block.find()) {
            if (block.group(1).contains(words)) {
                return block.group(1);
            }
        }
        throw new AssertionError("the README has no block with `" + words + "`");
    }

    private String java(String file) throws IOException, InterruptedException {
        Process run = process(file).redirectErrorStream(true).start();
        String said = new String(run.getInputStream().readAllBytes());
        assertEquals(0, run.waitFor(), said);
        return said;
    }

    private ProcessBuilder process(String file, String... arguments) {
        List<String> jars = Arrays.stream(System.getProperty("java.class.path").split(java.io.File.pathSeparator))
                .filter(path -> path.contains("autonomy-gate") || path.contains("chicory"))
                .collect(Collectors.toList());
        assertEquals(3, jars.size(), "the package, and Chicory's two: " + jars);
        List<String> command = new java.util.ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp", String.join(java.io.File.pathSeparator, jars), file));
        command.addAll(List.of(arguments));
        ProcessBuilder process = new ProcessBuilder(command).directory(empty.toFile());
        process.environment().put("AUTONOMY_NODE_ID", Support.NODE);
        return process;
    }
}
