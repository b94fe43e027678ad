import { base64 } from "./generated/gate-base64.js";
import { BaseGate, type LoadOptions } from "./gate.js";
import { compile, once } from "./module.js";
import { plainEngines } from "./plain.js";

export * from "./core.js";
export { NativeHost } from "./native-host-web.js";

const shipped = once(async () => compile(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))));

/** One node's gate, in a file of its own: no asset, no fetch. */
export class Gate extends BaseGate {
  /** Loads the module, and tells the gate what it is told once. Throws `GateError` for what is refused. */
  static async load(options: LoadOptions = {}): Promise<Gate> {
    return new Gate(plainEngines(await (options.module === undefined ? shipped() : compile(options.module))), options);
  }
}
