// The values of a block of random bytes are cheaper than as many calls.
const BLOCK_BYTES = 4096;
const RANDOM_BYTES = 10;

const pool = new Uint8Array(BLOCK_BYTES);
let used = BLOCK_BYTES;
// So is the text of a time: calls in one millisecond share it.
let timed = -1;
let time = "";

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** A new audit id: a UUID of version 7, which sorts by the time it was made at. */
export function auditId(nowMs: number = Date.now()): string {
  if (used + RANDOM_BYTES > BLOCK_BYTES) {
    globalThis.crypto.getRandomValues(pool);
    used = 0;
  }
  const random = (at: number): number => pool[used + at]!;
  if (nowMs !== timed) {
    const digits = Math.floor(nowMs).toString(16).padStart(12, "0").slice(-12);
    time = `${digits.slice(0, 8)}-${digits.slice(8)}`;
    timed = nowMs;
  }
  const version = 0x70 | (random(0) & 0x0f);
  const variant = 0x80 | (random(2) & 0x3f);
  const id =
    `${time}-${hex[version]}${hex[random(1)]}-${hex[variant]}${hex[random(3)]}-` +
    `${hex[random(4)]}${hex[random(5)]}${hex[random(6)]}${hex[random(7)]}${hex[random(8)]}${hex[random(9)]}`;
  used += RANDOM_BYTES;
  return id;
}
