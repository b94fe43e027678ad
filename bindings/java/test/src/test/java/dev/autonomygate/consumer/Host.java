package dev.autonomygate.consumer;

import dev.autonomygate.NativeHost;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The real native host: {@code autonomy host serve} in a directory of its own. */
final class Host implements AutoCloseable {
    private static final Pattern ADDRESS = Pattern.compile("127\\.0\\.0\\.1:\\d+");

    final Path token;
    final String url;
    private final Path home;
    private final String address;
    private Process process;

    Host(Path home) throws IOException, InterruptedException {
        this.home = home;
        token = home.resolve("host.token");
        autonomy("host", "token", "--out", token.toString());
        address = serve(command("host", "serve", "--listen", "127.0.0.1:0", "--token-file", token.toString()));
        url = "http://" + address;
    }

    /** Ends the host without a warning, as a fault does. */
    void kill() {
        process.destroyForcibly();
        process.onExit().join();
    }

    /** Starts it again, where it was. */
    void restart() throws IOException, InterruptedException {
        close();
        serve(command("host", "serve", "--listen", address, "--token-file", token.toString()));
    }

    /** Starts it again, where it was. No file of it may grow beyond so many KiB, which is to it as a full disk. */
    void restartOnADiskOf(int kib) throws IOException, InterruptedException {
        close();
        ProcessBuilder serve = command("host", "serve", "--listen", address, "--token-file", token.toString());
        serve.command().addAll(0, List.of("bash", "-c", "ulimit -f " + kib + "; exec \"$0\" \"$@\""));
        serve(serve);
    }

    NativeHost client() throws IOException {
        return NativeHost.of(url, token);
    }

    /** Runs the command and gives what it printed. */
    String autonomy(String... arguments) throws IOException, InterruptedException {
        Process run = command(arguments).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String printed = new String(run.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        if (run.waitFor() != 0) {
            throw new IOException(String.join(" ", arguments) + " failed: " + printed);
        }
        return printed;
    }

    @Override
    public void close() {
        process.destroy();
        process.onExit().join();
    }

    private ProcessBuilder command(String... arguments) {
        List<String> command = new ArrayList<>(List.of(System.getenv("AUTONOMY"), "--home", home.toString()));
        command.addAll(List.of(arguments));
        return new ProcessBuilder(command);
    }

    /** Starts it, and gives where it listens. */
    private String serve(ProcessBuilder serve) throws IOException, InterruptedException {
        Path log = home.resolve("host.log");
        process = serve.redirectErrorStream(true).redirectOutput(log.toFile()).start();
        for (int tries = 0; tries < 600 && process.isAlive(); tries += 1) {
            Matcher found = ADDRESS.matcher(Files.readString(log));
            if (found.find()) {
                return found.group();
            }
            Thread.sleep(50);
        }
        throw new IOException("the host does not start: " + Files.readString(log));
    }
}
