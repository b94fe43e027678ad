/** What kind of thing was wrong. `malformed`: the input is not what the call takes. `refused`: it was read and does not hold. */
export type GateErrorCode = "malformed" | "refused" | "unsupported" | "trapped";

/** An error of the gate or its configuration, in one line: what was wrong, with which value, what to do. */
export class GateError extends Error {
  override readonly name = "GateError";

  constructor(
    readonly code: GateErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** Somebody else's error as one line, whatever was thrown. */
export function line(error: unknown): string {
  let text: string;
  try {
    text = String(error instanceof Error ? error.message || error.name : error);
  } catch {
    text = "something that has no text";
  }
  return wellFormed(text.replace(/\s+/g, " ").slice(0, 300));
}

/** The text with U+FFFD for each half of a surrogate pair, which has no UTF-8. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}

/** Refuses members that nobody knows: a misspelt one must not count as an absent one. */
export function onlyKnown(what: string, given: object, known: ReadonlySet<string>): void {
  for (const name in given) {
    if (!known.has(name)) {
      throw new GateError("malformed", `${what} has an unknown member \`${name}\`: expected ${[...known].join(", ")}`);
    }
  }
}
