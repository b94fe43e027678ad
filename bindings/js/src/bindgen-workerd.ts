import wasm from "../gate_bindgen.wasm";

import { BaseGate, type LoadOptions } from "./gate.js";
import { compile, once } from "./module.js";
import { bindgenEngines } from "./bindgen.js";

export * from "./core.js";
export { NativeHost } from "./native-host-web.js";

// Compiled when the worker is deployed: compiling at run time is not allowed there.
const shipped = once(async () => wasm);

/** One node's gate, through wasm-bindgen. */
export class Gate extends BaseGate {
  /** Loads the module, and tells the gate what it is told once. Throws `GateError` for what is refused. */
  static async load(options: LoadOptions = {}): Promise<Gate> {
    return new Gate(bindgenEngines(await (options.module === undefined ? shipped() : compile(options.module))), options);
  }
}
