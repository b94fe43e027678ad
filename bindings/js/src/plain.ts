import type {
  BundleDocument,
  CallDocument,
  ConfigurationDocument,
  DecisionDocument,
  ExplanationDocument,
  InfoDocument,
} from "./documents.js";
import type { Engine, Engines } from "./engine.js";
import { GateError } from "./errors.js";

const ABI_MAJOR = 1;
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
} as const;

type Exports = { readonly [name in keyof typeof FUNCTIONS]: (argument?: number) => number } & {
  readonly memory: WebAssembly.Memory;
};

/** Room for any call: a longer text asks for more. */
const FIRST_INPUT_BYTES = 8 * 1024;

const FRAMES = ',"frames":[';

const encoder = new TextEncoder();
// A mark at the beginning is a character like any other, and bytes that are no text are a defect.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Makes instances of a module with the plain ABI, and refuses any other module. @internal */
export function plainEngines(module: WebAssembly.Module): Engines {
  const [imported] = WebAssembly.Module.imports(module);
  if (imported) {
    throw new GateError(
      "unsupported",
      `the module imports \`${imported.module}.${imported.name}\`: gate.wasm imports nothing, load that one`,
    );
  }
  return (configuration) => new PlainEngine(module, configuration);
}

function exportsOf(module: WebAssembly.Module): Exports {
  const { exports } = new WebAssembly.Instance(module, {});
  const major = exports["gate_abi_major"];
  const found = major instanceof WebAssembly.Global ? major.value : undefined;
  if (found !== ABI_MAJOR) {
    throw new GateError(
      "unsupported",
      `the module's ABI is \`${found ?? "none"}\`: this package speaks ${ABI_MAJOR}, use the gate.wasm that comes with it`,
    );
  }
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
  #view: Uint8Array;
  #inputPtr = 0;
  #inputBytes = 0;

  constructor(module: WebAssembly.Module, configuration: ConfigurationDocument) {
    this.#exports = exportsOf(module);
    this.#view = new Uint8Array(this.#exports.memory.buffer);
    this.#reserve(FIRST_INPUT_BYTES);
    this.#done(this.#exports.gate_configure(this.#text(JSON.stringify(configuration))));
  }

  get memoryBytes(): number {
    return this.#exports.memory.buffer.byteLength;
  }

  info(): InfoDocument {
    this.#done(this.#exports.gate_info());
    return JSON.parse(this.#output()) as InfoDocument;
  }

  loadBundle(tar: Uint8Array): BundleDocument {
    this.#done(this.#exports.gate_load_bundle(this.#bytes(tar)));
    return JSON.parse(this.#output()) as BundleDocument;
  }

  setEnrollment(json: string): void {
    this.#done(this.#exports.gate_set_enrollment(this.#text(json)));
  }

  setLease(envelope: Uint8Array): void {
    this.#done(this.#exports.gate_set_lease(this.#bytes(envelope)));
  }

  verdict(nowMs: number): number {
    return this.#exports.gate_verdict(nowMs);
  }

  decide(call: CallDocument): DecisionDocument {
    const number = this.#exports.gate_decide(this.#text(JSON.stringify(call)));
    if (number < 0) this.#done(number);
    const decision = read(this.#output());
    if ((number === 0) !== (decision.effect === "allow")) {
      throw new Error(`gate_decide gave ${number} and says \`${decision.effect}\``);
    }
    return decision;
  }

  decideBatch(calls: CallDocument[]): (DecisionDocument | { error: string })[] {
    const lines = calls.map((call) => JSON.stringify(call)).join("\n");
    const count = this.#exports.gate_decide_batch(this.#text(lines));
    if (count < 0) this.#done(count);
    const answers = this.#output().split("\n", calls.length);
    if (count !== calls.length || answers.length !== count) {
      throw new Error(`gate_decide_batch gave ${count} lines for ${calls.length} calls`);
    }
    return answers.map((answer) => (answer.startsWith('{"error":') ? (JSON.parse(answer) as { error: string }) : read(answer)));
  }

  explain(nowMs: number): ExplanationDocument {
    this.#done(this.#exports.gate_explain(nowMs));
    return JSON.parse(this.#output()) as ExplanationDocument;
  }

  #done(number: number): void {
    if (number === 0) return;
    const { error } = JSON.parse(this.#output()) as { error: string };
    throw new GateError(number === REFUSED ? "refused" : "malformed", error);
  }

  /** Writes a text into the input, and gives its length in bytes. */
  #text(text: string): number {
    // A UTF-16 unit becomes at most three bytes.
    if (text.length * 3 > this.#inputBytes) {
      return this.#bytes(encoder.encode(text));
    }
    this.#refresh();
    const input = this.#view.subarray(this.#inputPtr, this.#inputPtr + this.#inputBytes);
    return encoder.encodeInto(text, input).written;
  }

  #bytes(bytes: Uint8Array): number {
    this.#reserve(bytes.length);
    this.#view.set(bytes, this.#inputPtr);
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
    }
    this.#refresh();
  }

  #output(): string {
    const from = this.#exports.gate_output_ptr() >>> 0;
    const bytes = this.#exports.gate_output_len() >>> 0;
    this.#refresh();
    return decoder.decode(this.#view.subarray(from, from + bytes));
  }

  /** Memory that grew has another buffer. */
  #refresh(): void {
    if (this.#view.buffer !== this.#exports.memory.buffer) {
      this.#view = new Uint8Array(this.#exports.memory.buffer);
    }
  }
}

/** Reads all of a decision but its frames: they go to the log as the text that they are. */
function read(text: string): DecisionDocument {
  // What stands before is an effect, a digest and two reasons: none can hold this text.
  const at = text.indexOf(FRAMES);
  if (at < 0) throw new Error("a decision without frames");
  const decision = JSON.parse(`${text.slice(0, at)}}`) as DecisionDocument;
  decision.frames = text.slice(at + FRAMES.length - 1, -1);
  return decision;
}
