import type {
  BundleDocument,
  CallDocument,
  ConfigurationDocument,
  DecisionDocument,
  ExplanationDocument,
  InfoDocument,
} from "./documents.js";
import type { Engine, Engines } from "./engine.js";
import { GateError, wellFormed } from "./errors.js";
import { abiOf, instantiate, refuseOtherAbi } from "./module.js";

const REFUSED = -2;

/** The functions that are called, each with how many arguments it takes. */
const FUNCTIONS = {
  gate_input: 1,
  gate_output_ptr: 0,
  gate_output_len: 0,
  gate_info: 0,
  gate_configure: 1,
  gate_load_bundle: 1,
  gate_set_enrollment: 1,
  gate_set_lease: 1,
  gate_verdict: 1,
  gate_decide: 1,
  gate_decide_batch: 1,
  gate_explain: 1,
  gate_verify_signature: 1,
} as const;

type Exports = { readonly [name in keyof typeof FUNCTIONS]: (argument?: number) => number } & {
  readonly memory: WebAssembly.Memory;
};

/** Room for any call: a longer text asks for more. */
const FIRST_INPUT_BYTES = 8 * 1024;

const FRAMES = ',"frames":[';

/** What a call has behind its time, its audit id and its tool: nearly every one has the same. */
const SHARED = ["policy", "policy_ref", "policy_detail", "facts_logged"] as const;

/** What stands between quotes as it is. */
const PLAIN_TEXT = /^[ !#-[\]-~]*$/;

/** What stands for a value that has no JSON: no member of a call is an object, so it is malformed, and never as if absent. */
const NOT_JSON = "{}";

const encoder = new TextEncoder();
// A mark at the beginning is a character like any other, and bytes that are no text are a defect.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Makes gates of a module with the plain ABI; each of them refuses a module with another. @internal */
export function plainEngines(module: WebAssembly.Module): Engines {
  return (configuration) => new PlainEngine(module, configuration);
}

function exportsOf(module: WebAssembly.Module): Exports {
  const exports = instantiate(module);
  refuseOtherAbi(abiOf(exports));
  for (const name of Object.keys(FUNCTIONS)) {
    if (typeof exports[name] !== "function") {
      throw new GateError("unsupported", `the module has no \`${name}\`: use the gate.wasm that comes with this package`);
    }
  }
  return exports as unknown as Exports;
}

class PlainEngine implements Engine {
  readonly lost = false;
  readonly #exports: Exports;
  #memory = new Uint8Array(0);
  #input = this.#memory;
  #inputPtr = 0;
  #inputBytes = 0;
  /** What the last call put out: nearly every one is as long, and lies there. */
  #output = this.#memory;
  /** The last call, and the text of what the next one shares with it. */
  #call: CallDocument | undefined;
  #shared = "";
  /** Up to a call's audit id: calls in one millisecond have the same. */
  #time = -1;
  #start = "";
  /** What the last decision said before its frames: nearly every one says the same. */
  #head = "";
  #decided: Omit<DecisionDocument, "frames"> | undefined;

  constructor(module: WebAssembly.Module, configuration: ConfigurationDocument) {
    this.#exports = exportsOf(module);
    this.#reserve(FIRST_INPUT_BYTES);
    this.#done(this.#exports.gate_configure(this.#text(JSON.stringify(configuration))));
  }

  get memoryBytes(): number {
    return this.#exports.memory.buffer.byteLength;
  }

  info(): InfoDocument {
    this.#done(this.#exports.gate_info());
    return JSON.parse(this.#said()) as InfoDocument;
  }

  loadBundle(tar: Uint8Array): BundleDocument {
    this.#done(this.#exports.gate_load_bundle(this.#bytes(tar)));
    return JSON.parse(this.#said()) as BundleDocument;
  }

  setEnrollment(json: string): void {
    this.#done(this.#exports.gate_set_enrollment(this.#told(() => this.#text(json))));
  }

  setLease(envelope: Uint8Array): void {
    this.#done(this.#exports.gate_set_lease(this.#told(() => this.#bytes(envelope))));
  }

  verdict(nowMs: number): number {
    return this.#exports.gate_verdict(nowMs);
  }

  decide(call: CallDocument): DecisionDocument {
    const number = this.#exports.gate_decide(this.#text(this.#write(call)));
    if (number < 0) this.#done(number);
    const decision = this.#read(this.#said());
    if ((number === 0) !== (decision.effect === "allow")) {
      throw new Error(`gate_decide gave ${number} and says \`${decision.effect}\``);
    }
    return decision;
  }

  decideBatch(calls: CallDocument[]): (DecisionDocument | { error: string })[] {
    const lines = calls.map((call) => this.#write(call)).join("\n");
    const count = this.#exports.gate_decide_batch(this.#text(lines));
    if (count < 0) this.#done(count);
    const answers = this.#said().split("\n", calls.length);
    if (count !== calls.length || answers.length !== count) {
      throw new Error(`gate_decide_batch gave ${count} lines for ${calls.length} calls`);
    }
    return answers.map((answer) =>
      answer.startsWith('{"error":') ? (JSON.parse(answer) as { error: string }) : this.#read(answer),
    );
  }

  explain(nowMs: number): ExplanationDocument {
    this.#done(this.#exports.gate_explain(nowMs));
    return JSON.parse(this.#said()) as ExplanationDocument;
  }

  verifySignature(input: Uint8Array): boolean {
    return this.#exports.gate_verify_signature(this.#bytes(input)) === 0;
  }

  /** What does not fit is no answer, and the one before must not stand: no text at all is told in its place. */
  #told(write: () => number): number {
    try {
      return write();
    } catch (error) {
      this.#exports.gate_set_enrollment(0);
      throw error;
    }
  }

  #done(number: number): void {
    if (number === 0) return;
    const { error } = JSON.parse(this.#said()) as { error: string };
    throw new GateError(number === REFUSED ? "refused" : "malformed", error);
  }

  /** Writes a text into the input, and gives its length in bytes. */
  #text(text: string): number {
    // A UTF-16 unit becomes at most three bytes.
    if (text.length * 3 > this.#inputBytes) {
      return this.#bytes(encoder.encode(text));
    }
    this.#refresh();
    return encoder.encodeInto(text, this.#input).written;
  }

  #bytes(bytes: Uint8Array): number {
    this.#reserve(bytes.length);
    this.#input.set(bytes);
    return bytes.length;
  }

  /** Asks for room. The buffer moves only when more is asked for than ever before. */
  #reserve(bytes: number): void {
    if (bytes > this.#inputBytes) {
      const input = this.#exports.gate_input(bytes) >>> 0;
      if (input === 0) {
        throw new GateError("malformed", `an input of \`${bytes}\` bytes is larger than the gate takes: send less`);
      }
      this.#inputPtr = input;
      this.#inputBytes = bytes;
      this.#look();
    } else {
      this.#refresh();
    }
  }

  #said(): string {
    const from = this.#exports.gate_output_ptr() >>> 0;
    const bytes = this.#exports.gate_output_len() >>> 0;
    this.#refresh();
    if (this.#output.byteOffset !== from || this.#output.length !== bytes) {
      this.#output = this.#memory.subarray(from, from + bytes);
    }
    return decoder.decode(this.#output);
  }

  /** Memory that grew has another buffer. */
  #refresh(): void {
    if (this.#memory.buffer !== this.#exports.memory.buffer) this.#look();
  }

  #look(): void {
    this.#memory = new Uint8Array(this.#exports.memory.buffer);
    this.#output = this.#memory;
    this.#input = this.#memory.subarray(this.#inputPtr, this.#inputPtr + this.#inputBytes);
  }

  /** Reads all of a decision but its frames: they go to the log as the text that they are. */
  #read(text: string): DecisionDocument {
    if (this.#decided === undefined || text.slice(0, this.#head.length) !== this.#head) {
      // What stands before is an effect, a digest and two reasons: none can hold this text.
      const at = text.indexOf(FRAMES);
      if (at < 0) throw new Error("a decision without frames");
      this.#decided = JSON.parse(`${text.slice(0, at)}}`) as DecisionDocument;
      this.#head = text.slice(0, at + FRAMES.length);
    }
    const { effect, reason, verdict, facts } = this.#decided;
    return { effect, reason, verdict, facts, frames: text.slice(this.#head.length - 1, -1) };
  }

  /** `JSON.stringify`, at a fraction of its price. */
  #write(call: CallDocument): string {
    const last = this.#call;
    if (
      last === undefined ||
      call.policy !== last.policy ||
      call.policy_ref !== last.policy_ref ||
      call.policy_detail !== last.policy_detail ||
      call.facts_logged !== last.facts_logged
    ) {
      this.#shared = `${SHARED.map((name) => member(name, call[name])).join("")}}`;
      this.#call = call;
    }
    if (call.now_ms !== this.#time) {
      this.#time = call.now_ms;
      this.#start = `{"now_ms":${value(call.now_ms)},"audit_id":`;
    }
    return this.#start + value(call.audit_id) + member("tool", call.tool) + this.#shared;
  }
}

function member(name: string, given: unknown): string {
  return given === undefined ? "" : `,"${name}":${value(given)}`;
}

function value(value: unknown): string {
  if (typeof value === "string" && PLAIN_TEXT.test(value)) return `"${value}"`;
  if (Number.isSafeInteger(value)) return `${value}`;
  // JSON would make `null` of it, which is as good as absent.
  if (typeof value === "number" && !Number.isFinite(value)) return NOT_JSON;
  try {
    // As wasm-bindgen passes it on.
    return JSON.stringify(typeof value === "string" ? wellFormed(value) : value) ?? NOT_JSON;
  } catch {
    return NOT_JSON;
  }
}
