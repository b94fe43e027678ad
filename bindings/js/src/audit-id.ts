// The values of a block of random bytes are cheaper than as many calls.
const BLOCK_BYTES = 4096;
const RANDOM_BYTES = 10;
const MOST_MS = 2 ** 48 - 1;

const pool = new Uint8Array(BLOCK_BYTES);
let used = BLOCK_BYTES;
// So are the codes of a time's text: calls in one millisecond share them.
let timed = -1;
const time = new Uint8Array(14);

/** The character codes of the two hexadecimal digits of each byte. */
const HIGH = digits((byte) => byte >> 4);
const LOW = digits((byte) => byte & 15);
const DASH = 45;

function digits(nibble: (byte: number) => number): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, byte) => nibble(byte).toString(16).charCodeAt(0));
}

/** A new audit id: a UUID of version 7, which sorts by the time it was made at. That has 48 bits: it is 0 for what is below, and the most for what is above. */
export function auditId(nowMs: number = Date.now()): string {
  if (used + RANDOM_BYTES > BLOCK_BYTES) {
    globalThis.crypto.getRandomValues(pool);
    used = 0;
  }
  if (nowMs !== timed) {
    const ms = nowMs > 0 ? Math.min(Math.floor(nowMs), MOST_MS) : 0;
    const digits = ms.toString(16).padStart(12, "0");
    const text = `${digits.slice(0, 8)}-${digits.slice(8)}-`;
    for (let at = 0; at < time.length; at += 1) time[at] = text.charCodeAt(at);
    timed = nowMs;
  }
  const at = used;
  used += RANDOM_BYTES;
  const version = 0x70 | (pool[at]! & 0x0f);
  const variant = 0x80 | (pool[at + 2]! & 0x3f);
  const high = (byte: number): number => HIGH[pool[at + byte]!]!;
  const low = (byte: number): number => LOW[pool[at + byte]!]!;
  // All of it at once: joined from pieces, it would be put together again by whoever reads it.
  return String.fromCharCode(
    time[0]!,
    time[1]!,
    time[2]!,
    time[3]!,
    time[4]!,
    time[5]!,
    time[6]!,
    time[7]!,
    time[8]!,
    time[9]!,
    time[10]!,
    time[11]!,
    time[12]!,
    time[13]!,
    HIGH[version]!,
    LOW[version]!,
    high(1),
    low(1),
    DASH,
    HIGH[variant]!,
    LOW[variant]!,
    high(3),
    low(3),
    DASH,
    high(4),
    low(4),
    high(5),
    low(5),
    high(6),
    low(6),
    high(7),
    low(7),
    high(8),
    low(8),
    high(9),
    low(9),
  );
}
