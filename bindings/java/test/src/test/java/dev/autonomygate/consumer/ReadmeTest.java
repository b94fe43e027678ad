package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.DeniedException;
import dev.autonomygate.Enrollment;
import dev.autonomygate.Guard;
import dev.autonomygate.MemoryHost;
import dev.autonomygate.servlet.GateFilter;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.ServletContainerInitializer;
import jakarta.servlet.ServletContext;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.Method;
import java.net.URI;
import java.net.URL;
import java.net.URLClassLoader;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
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
    private static final String DENIED = "the call is denied: attestation: bundle_unverified";

    @TempDir
    Path empty;

    @Test
    void everyBlockIsOneThatATestRuns() throws IOException {
        Matcher block = Pattern.compile("^```(\\w*)$.*?^```$", Pattern.MULTILINE | Pattern.DOTALL).matcher(readme());
        List<String> languages = block.results().map(found -> found.group(1)).collect(Collectors.toList());
        // The first lines, Maven's dependency and command, a node, and a servlet's filter.
        assertEquals(List.of("java", "xml", "sh", "java", "java"), languages);
    }

    @Test
    void theFirstLinesWorkAsWritten() throws Exception {
        String arm = block("java", "class Arm ");
        assertTrue(arm.lines().count() <= 10, "ten lines were promised");
        write("Arm.java", arm);
        Process run = process("Arm.java").redirectErrorStream(true).start();
        String said = new String(run.getInputStream().readAllBytes());
        assertTrue(said.startsWith("Exception in thread \"main\" dev.autonomygate.DeniedException: " + DENIED + "\n"), said);
        assertEquals(1, run.waitFor());
    }

    @Test
    void mavenRunsTheFirstLinesAsWritten() throws Exception {
        String dependency = block("xml", "<artifactId>autonomy-gate</artifactId>");
        Matcher version = Pattern.compile("<version>(.*)</version>").matcher(dependency);
        assertTrue(version.find());
        String jar = "autonomy-gate-" + version.group(1) + ".jar";
        assertTrue(System.getProperty("java.class.path").contains(jar), jar + " is not the one that is tested");
        write("pom.xml", "<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>arm</artifactId>"
                + "<version>1</version><properties><maven.compiler.source>11</maven.compiler.source>"
                + "<maven.compiler.target>11</maven.compiler.target></properties>"
                + "<dependencies>" + dependency + "</dependencies></project>");
        Files.createDirectories(empty.resolve("src/main/java"));
        write("src/main/java/Arm.java", block("java", "class Arm "));
        // What it downloads stays in the local repository: from the second time on, `mvn -o` does it as well.
        Process run = in("sh", "-c", block("sh", "mvn ")).redirectErrorStream(true).start();
        String said = new String(run.getInputStream().readAllBytes());
        assertTrue(said.contains(DENIED), said);
        assertEquals(1, run.waitFor());
    }

    @Test
    void aNodeWorksAsWritten() throws Exception {
        try (Host host = new Host(Files.createDirectory(empty.resolve("home")))) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            Files.copy(host.token, empty.resolve("host.token"), StandardCopyOption.COPY_ATTRIBUTES);
            bundle();
            write("Node.java", block("java", "class Node ").replace("http://127.0.0.1:7778", host.url));
            String allowed = java("Node.java");
            assertTrue(allowed.startsWith("the decision is on disk: the tool may run, once "), allowed);
            host.autonomy("node", "revoke", "--node-id", Support.NODE);
            assertTrue(java("Node.java").startsWith("403 {\"decision\":\"deny\",\"reason\":\"attestation: enrollment_revoked\""));
        }
    }

    @Test
    void theExampleGatesAnEndpoint() throws Exception {
        try (Host host = new Host(Files.createDirectory(empty.resolve("home")))) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            Files.copy(host.token, empty.resolve("host.token"), StandardCopyOption.COPY_ATTRIBUTES);
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

    @Test
    void aServletIsGatedAsWritten() throws Exception {
        write("ArmFilter.java", block("java", "class ArmFilter "));
        List<String> jars = jars("autonomy-gate", "chicory", "tomcat-embed-core");
        Process compile = in(tool("javac"), "-Xlint:all,-processing,-classfile", "-Werror", "-cp",
                String.join(File.pathSeparator, jars), "ArmFilter.java").inheritIO().start();
        assertEquals(0, compile.waitFor());

        MemoryHost host = new MemoryHost();
        host.enroll(Enrollment.of(Support.NODE, Support.GOOD.enrollmentRef));
        Guard guard = Support.patient(Support.good().load(), host).build();
        try (URLClassLoader written = new URLClassLoader(new URL[] {empty.toUri().toURL()})) {
            Method register = written.loadClass("ArmFilter").getDeclaredMethod("register", ServletContext.class, Guard.class);
            register.setAccessible(true);
            ServletContainerInitializer gate = (classes, context) ->
                    assertDoesNotThrow(() -> register.invoke(null, context, guard));
            List<String> dispatched = List.of("/arm", "/forwards", "/dispatches", "/fails");
            try (Container container = new Container(empty, gate, new Moving(),
                    "/arm", "/forwards", "/dispatches", "/fails", "/includes", "/other")) {
                for (String path : dispatched) {
                    HttpResponse<String> moved = container.get(path);
                    assertEquals(path.equals("/fails") ? 410 : 200, moved.statusCode());
                    String auditId = moved.body().substring("moved, ".length());
                    assertTrue(host.frames().stream().anyMatch(frame -> frame.auditId().equals(auditId)), moved.body());
                }
                assertTrue(container.get("/includes").body().matches("moved, [0-9a-f-]{36}"));
                host.revoke(Support.NODE);
                for (String path : dispatched) {
                    HttpResponse<String> denied = container.get(path);
                    assertEquals(403, denied.statusCode());
                    assertEquals("attestation: enrollment_revoked", Support.read(denied.body()).get("reason").asText());
                }
                HttpResponse<String> includes = container.get("/includes");
                assertEquals("403, attestation: enrollment_revoked", includes.body());
                assertEquals("moved, null", container.get("/other").body());
            }
        }
    }

    /** A servlet at the path that the README gates, and at others that dispatch to it in each way. */
    private static final class Moving extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
            // Where it is included, its path is that of what includes it.
            boolean first = request.getDispatcherType() == DispatcherType.REQUEST;
            switch (first ? request.getServletPath() : "/arm") {
                case "/forwards":
                    request.getRequestDispatcher("/arm").forward(request, response);
                    return;
                case "/dispatches":
                    request.startAsync().dispatch("/arm");
                    return;
                case "/fails":
                    response.sendError(410);
                    return;
                case "/includes":
                    try {
                        request.getRequestDispatcher("/arm").include(request, response);
                    } catch (ServletException e) {
                        DeniedException denied = (DeniedException) e.getCause();
                        response.getWriter().print(denied.status() + ", " + denied.reason());
                    }
                    return;
                default:
                    response.getWriter().print("moved, " + request.getAttribute(GateFilter.AUDIT_ID));
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

    /** The block of the README in this language that has these words. */
    private static String block(String language, String words) throws IOException {
        Matcher block = Pattern.compile("```" + language + "\n(.*?)```", Pattern.DOTALL).matcher(readme());
        while (block.find()) {
            if (block.group(1).contains(words)) {
                return block.group(1);
            }
        }
        throw new AssertionError("the README has no block with `" + words + "`");
    }

    private static String readme() throws IOException {
        return Files.readString(BINDING.resolve("README.md"));
    }

    private String java(String file) throws IOException, InterruptedException {
        Process run = process(file).redirectErrorStream(true).start();
        String said = new String(run.getInputStream().readAllBytes());
        assertEquals(0, run.waitFor(), said);
        return said;
    }

    private ProcessBuilder process(String file, String... arguments) {
        List<String> jars = jars("autonomy-gate", "chicory");
        assertEquals(3, jars.size(), "the package, and Chicory's two: " + jars);
        List<String> command = new ArrayList<>(List.of(tool("java"), "-cp", String.join(File.pathSeparator, jars), file));
        command.addAll(List.of(arguments));
        return in(command.toArray(String[]::new));
    }

    private static List<String> jars(String... names) {
        return Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
                .filter(path -> Arrays.stream(names).anyMatch(path::contains))
                .collect(Collectors.toList());
    }

    private static String tool(String name) {
        return Path.of(System.getProperty("java.home"), "bin", name).toString();
    }

    /** Runs a command in the empty directory. */
    private ProcessBuilder in(String... command) {
        ProcessBuilder process = new ProcessBuilder(command).directory(empty.toFile());
        process.environment().put("AUTONOMY_NODE_ID", Support.NODE);
        return process;
    }
}
