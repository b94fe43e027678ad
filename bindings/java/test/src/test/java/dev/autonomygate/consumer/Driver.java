package dev.autonomygate.consumer;

import dev.autonomygate.DeniedException;
import dev.autonomygate.Gate;
import dev.autonomygate.Guard;
import dev.autonomygate.Mode;
import dev.autonomygate.NativeHost;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * A runtime of {@code cargo xtask test together}: docs/src/spec/conformance.md says what it is given and what it prints.
 */
final class Driver {
    private Driver() {}

    public static void main(String[] args) throws Exception {
        NativeHost host = NativeHost.of(args[0], Path.of(args[1]));
        byte[] bundle = Files.readAllBytes(Path.of(args[2]));
        String key = Files.readString(Path.of(args[3]));
        List<Callable<Void>> nodes = new ArrayList<>();
        for (String node : List.of(args).subList(5, args.length)) {
            Gate gate = Gate.builder().bundle(bundle).trustedKeys(key).nodeId(node).mode(Mode.ENFORCE).load();
            Guard guard = Guard.builder(gate)
                    .source(host)
                    .sink(host)
                    .lookUpTimeout(Duration.ofSeconds(30))
                    .appendTimeout(Duration.ofSeconds(30))
                    .build();
            nodes.add(() -> call(guard, node));
        }
        ExecutorService tasks = Executors.newFixedThreadPool(Integer.parseInt(args[4]));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.out.println("ready");
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            List<Callable<Void>> calls = new ArrayList<>();
            for (int number = 0; number < Integer.parseInt(line); number++) {
                calls.add(nodes.get(number % nodes.size()));
            }
            for (Future<Void> made : tasks.invokeAll(calls)) {
                made.get();
            }
        }
        tasks.shutdown();
    }

    private static Void call(Guard guard, String node) {
        long beganUs = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
        String answered;
        try (Permit permit = guard.ask("tool.echo")) {
            permit.finish(Outcome.COMPLETED).join();
            answered = permit.auditId() + "\tallow";
        } catch (DeniedException denied) {
            answered = denied.auditId() + "\t" + denied.reason();
        }
        System.out.println(beganUs + "\t" + node + "\t" + answered);
        return null;
    }
}
