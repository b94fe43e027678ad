import { BaseGate, type LoadOptions } from "./gate.js";
import { compile, once } from "./module.js";
import { plainEngines } from "./plain.js";

export * from "./core.js";
export { NativeHost } from "./native-host-web.js";

// Bundlers see the address and carry the file. Nothing is fetched before a gate is loaded.
const shipped = once(async () => compile(new URL("../gate.wasm", import.meta.url)));

/** One node's gate. */
export class Gate extends BaseGate {
  /** Loads the module, and tells the gate what it is told once. Throws `GateError` for what is refused. */
  static async load(options: LoadOptions = {}): Promise<Gate> {
    return new Gate(plainEngines(await (options.module === undefined ? shipped() : compile(options.module))), options);
  }
}
