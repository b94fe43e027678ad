package dev.autonomygate;

import java.security.SecureRandom;
import java.util.UUID;

/** Makes audit ids: UUIDs of version 7, which sort by the millisecond they were made in. */
final class AuditId {
    private static final SecureRandom RANDOM = new SecureRandom();

    private AuditId() {}

    static String of(long nowMs) {
        long version = 0x7000L | RANDOM.nextInt() & 0x0fffL;
        long variant = 0x8000_0000_0000_0000L | RANDOM.nextLong() >>> 2;
        return new UUID(nowMs << 16 | version, variant).toString();
    }
}
