import type { CallDocument, ConfigurationDocument, DecisionDocument, InfoDocument } from "./documents.js";
import type { Engine, Engines } from "./engine.js";
import { GateError, line, type GateErrorCode } from "./errors.js";
import { BindgenGate, __wbg_reset_state, forget, initSync } from "./generated/gate_bindgen.js";
import { abiOf, instantiate, refuseOtherAbi, refuseOtherReasons } from "./module.js";

// wasm-bindgen's glue has one instance for all gates: when one traps, all are told to a new instance.
let loaded: WebAssembly.Module | undefined;
let generation = 0;
let broken = false;

/** Makes gates of the module that wasm-bindgen made. @internal */
export function bindgenEngines(module: WebAssembly.Module): Engines {
  refusePlain(module);
  if (loaded !== undefined && loaded !== module) {
    throw new GateError(
      "unsupported",
      "another module is loaded already: `autonomy-gate/bindgen` has one for all gates, give each the same `WebAssembly.Module`",
    );
  }
  if (loaded === undefined) load(module);
  return (configuration) => {
    if (broken) {
      __wbg_reset_state();
      generation += 1;
      broken = false;
    }
    return new BindgenEngine(configuration);
  };
}

/** Refuses all but a module of wasm-bindgen's: the glue would take another, and fail on it without saying why. */
function refusePlain(module: WebAssembly.Module): void {
  if (WebAssembly.Module.exports(module).some(({ name }) => name === "bindgengate_new")) return;
  refuseOtherAbi(abiOf(instantiate(module)));
  throw new GateError("unsupported", "the module has the plain ABI: load it by `autonomy-gate`, or leave `module` out");
}

/** Gives the module to the glue, which keeps it if it is this package's. */
function load(module: WebAssembly.Module): void {
  try {
    initSync({ module });
    refuseOther();
  } catch (error) {
    forget();
    if (error instanceof GateError) throw error;
    const message = `the module does not start in wasm-bindgen's glue (${line(error)}): use the module that comes with this package`;
    throw new GateError("unsupported", message, { cause: error });
  }
  loaded = module;
}

/** Asks a gate of the glue's module what that is, and refuses another than this package's. */
function refuseOther(): void {
  const gate = new BindgenGate({});
  try {
    const { abi, reasons } = gate.info() as InfoDocument;
    refuseOtherAbi(abi.major);
    refuseOtherReasons(reasons);
  } finally {
    // While its memory is there: the glue's finalizer would free it in that of the next module.
    gate.free();
  }
}

class BindgenEngine implements Engine {
  readonly #gate: BindgenGate;
  readonly #generation = generation;

  constructor(configuration: ConfigurationDocument) {
    this.#gate = entered("malformed", () => new BindgenGate(configuration));
  }

  get lost(): boolean {
    return broken || this.#generation !== generation;
  }

  get memoryBytes(): number {
    // It gives the instance that there is.
    return loaded === undefined ? 0 : initSync({ module: loaded }).memory.buffer.byteLength;
  }

  info(): InfoDocument {
    return entered("malformed", () => this.#gate.info()) as InfoDocument;
  }

  loadBundle(tar: Uint8Array): ReturnType<Engine["loadBundle"]> {
    return entered("refused", () => this.#gate.loadBundle(tar)) as ReturnType<Engine["loadBundle"]>;
  }

  setEnrollment(json: string): void {
    entered("malformed", () => this.#gate.setEnrollment(json));
  }

  setLease(envelope: Uint8Array): void {
    entered("refused", () => this.#gate.setLease(envelope));
  }

  verdict(nowMs: number): number {
    return entered("malformed", () => this.#gate.verdict(nowMs));
  }

  decide(call: CallDocument): DecisionDocument {
    return entered("malformed", () => this.#gate.decide(call)) as DecisionDocument;
  }

  decideBatch(calls: CallDocument[]): (DecisionDocument | { error: string })[] {
    return calls.map((call) => {
      try {
        return this.decide(call);
      } catch (error) {
        if (error instanceof GateError) return { error: error.message };
        throw error;
      }
    });
  }

  explain(nowMs: number): ReturnType<Engine["explain"]> {
    return entered("malformed", () => this.#gate.explain(nowMs)) as ReturnType<Engine["explain"]>;
  }

  verifySignature(input: Uint8Array): boolean {
    return entered("malformed", () => this.#gate.verifySignature(input));
  }
}

/** A refusal comes as an `Error` of its own; what else is thrown is a trap, and ends the instance. */
function entered<T>(code: GateErrorCode, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error && Object.getPrototypeOf(error) === Error.prototype) {
      throw new GateError(code, error.message);
    }
    broken = true;
    throw error;
  }
}
