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
            Guard guard = Guard.of(Support.good().load(), client);
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
            "http://127.0.0.1.example.com", "http://localhost@example.com", "not a url"
        }) {
            assertThrows(GateException.class, () -> NativeHost.withToken(url, FakeHost.TOKEN), url);
        }
        for (String url : new String[] {"http://localhost:1", "http://127.1.2.3:1", "http://[::1]:1"}) {
            NativeHost.withToken(url, FakeHost.TOKEN);
        }
    }
}
