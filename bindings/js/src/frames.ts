import type { Frame } from "./documents.js";

/**
 * The frames of one call: they are appended as one batch, durable before the tool runs and before the caller is answered.
 *
 * What goes to the log is `json`, byte for byte: it is hashed, and it may hold integers that a JavaScript number does
 * not. Iterate over it to look at the frames.
 */
export class Frames implements Iterable<Frame> {
  /** The text of a JSON array. */
  readonly json: string;

  constructor(json: string) {
    this.json = json;
  }

  [Symbol.iterator](): Iterator<Frame> {
    return (JSON.parse(this.json) as Frame[])[Symbol.iterator]();
  }

  toJSON(): Frame[] {
    return [...this];
  }
}
