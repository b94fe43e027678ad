package dev.autonomygate.consumer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.autonomygate.DeniedException;
import dev.autonomygate.GateException;
import dev.autonomygate.Guard;
import dev.autonomygate.NativeHost;
import dev.autonomygate.Outcome;
import dev.autonomygate.Permit;
import dev.autonomygate.Reason;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The host's client: at the real host, and how it is told where it is. */
class NativeHostTest {
    @TempDir
    Path home;

    @Test
    void aRevokeIsSeenAndEveryFrameIsInTheLog() throws Exception {
        try (Host host = new Host(home)) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            NativeHost client = host.client();
            assertTrue(client.isHealthy());
            Guard guard = Support.patient(Support.good().load(), client).build();
            Permit permit = guard.ask("tool.echo");
            permit.finish(Outcome.COMPLETED).get();
            host.autonomy("node", "revoke", "--node-id", Support.NODE);
            DeniedException denied = assertThrows(DeniedException.class, () -> guard.ask("tool.echo"));
            assertEquals(Reason.ENROLLMENT_REVOKED, denied.reason());
            String allowed = host.autonomy("wal", "inspect", "--output", "json");
            assertTrue(allowed.contains(permit.auditId()) && allowed.contains("\"completed\""), allowed);
            assertTrue(allowed.contains(denied.auditId()), allowed);
        }
    }

    @Test
    void aHostThatIsKilledAndComesBackIsAskedAgain() throws Exception {
        try (Host host = new Host(home)) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            Guard guard = Support.patient(Support.good().load(), host.client()).build();
            List<String> allowed = new ArrayList<>();
            List<String> denied = new ArrayList<>();
            for (int round = 0; round < 2; round += 1) {
                allowed.add(allowed(guard));
                host.kill();
                for (int call = 0; call < 3; call += 1) {
                    denied.add(unrecorded(guard).auditId());
                }
                host.restart();
            }
            allowed.add(allowed(guard));
            host.autonomy("wal", "verify");
            String log = host.autonomy("wal", "inspect", "--output", "json");
            assertTrue(allowed.stream().allMatch(log::contains), log);
            assertTrue(denied.stream().noneMatch(log::contains), log);
        }
    }

    @Test
    void onAFullDiskACallIsDeniedAndNothingThatRanIsMissing() throws Exception {
        try (Host host = new Host(home)) {
            host.autonomy("node", "enroll", "--node-id", Support.NODE, "--enrollment-ref", Support.GOOD.enrollmentRef);
            host.restartOnADiskOf(64);
            Guard guard = Support.patient(Support.good().load(), host.client()).build();
            List<String> allowed = new ArrayList<>();
            DeniedException full = assertThrows(DeniedException.class, () -> {
                for (int call = 0; call < 1_000; call += 1) {
                    // Not finished: it is a decision that finds no room.
                    allowed.add(guard.ask("tool.echo").auditId());
                }
            });
            assertEquals(Reason.WAL_UNAVAILABLE, full.reason());
            assertEquals(503, full.status());
            // Before it ended, the host said why.
            String cause = full.getCause().getMessage();
            assertTrue(cause.contains("`503`: ") && cause.contains("ulimit -f"), cause);
            assertTrue(allowed.size() > 10, () -> allowed.size() + " calls");
            unrecorded(guard);
            host.restart();
            allowed.add(allowed(guard));
            host.autonomy("wal", "verify");
            String log = host.autonomy("wal", "inspect", "--output", "json");
            assertTrue(allowed.stream().allMatch(log::contains), log);
        }
    }

    /** A call that is allowed and ends before the next: its audit id. */
    private static String allowed(Guard guard) throws Exception {
        try (Permit permit = guard.ask("tool.echo")) {
            permit.finish(Outcome.COMPLETED).get();
            return permit.auditId();
        }
    }

    private static DeniedException unrecorded(Guard guard) {
        DeniedException denied = assertThrows(DeniedException.class, () -> guard.ask("tool.echo"));
        assertEquals(Reason.WAL_UNAVAILABLE, denied.reason());
        assertEquals(503, denied.status());
        return denied;
    }

    @Test
    void theTokenIsTheOwnersAlone() throws Exception {
        Path token = Files.writeString(home.resolve("token"), FakeHost.TOKEN + "\n");
        Files.setPosixFilePermissions(token, PosixFilePermissions.fromString("rw-r--r--"));
        GateException open = assertThrows(GateException.class, () -> NativeHost.of("http://127.0.0.1:1", token));
        assertTrue(open.getMessage().endsWith("(mode `rw-r--r--`): run `chmod 600` on it"), open.getMessage());
        Files.setPosixFilePermissions(token, PosixFilePermissions.fromString("rw-------"));
        assertFalse(NativeHost.of("http://127.0.0.1:1", token).isHealthy());
        assertThrows(GateException.class, () -> NativeHost.withToken("http://127.0.0.1:1", "two words"));
    }

    @Test
    void theTokenIsSentOverLoopbackAlone() {
        for (String url : new String[] {
            "http://example.com", "http://10.0.0.1:7778", "https://127.0.0.1", "ftp://127.0.0.1", "127.0.0.1:7778",
            "http://127.0.0.1.example.com", "http://localhost@example.com", "http://me@127.0.0.1:7778",
            "http://127.0.0.1:7778/v1", "http://127.0.0.1:7778?a", "mailto:a", "not a url"
        }) {
            assertThrows(GateException.class, () -> NativeHost.withToken(url, FakeHost.TOKEN), url);
        }
        for (String url : new String[] {"http://localhost:1", "http://127.1.2.3:1", "http://[::1]:1"}) {
            NativeHost.withToken(url, FakeHost.TOKEN);
        }
    }
}
