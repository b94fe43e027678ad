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

/** Somebody else's error as one line. */
export function line(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.replace(/\s+/g, " ").slice(0, 300);
}

/** Refuses members that nobody knows: a misspelt one must not count as an absent one. */
export function onlyKnown(what: string, given: object, known: ReadonlySet<string>): void {
  for (const name in given) {
    if (!known.has(name)) {
      throw new GateError("malformed", `${what} has an unknown member \`${name}\`: expected ${[...known].join(", ")}`);
    }
  }
}
