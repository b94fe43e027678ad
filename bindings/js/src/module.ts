import { GateError, line } from "./errors.js";
import type { ModuleSource } from "./gate.js";
import { REASONS_DIGEST } from "./reasons.js";

/** Compiles what was given, once it is there. @internal */
export async function compile(source: ModuleSource | Promise<ModuleSource>): Promise<WebAssembly.Module> {
  const given = await source;
  if (given instanceof WebAssembly.Module) return given;
  const bytes = await bytesOf(given);
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new GateError("unsupported", `what was loaded as the module is none (${line(error)}): ${HINT}`, { cause: error });
  }
}

const HINT =
  "pass `module`, or take `autonomy-gate/inline`; under Vite's dev server, add `autonomy-gate` to `optimizeDeps.exclude`";

async function bytesOf(given: BufferSource | Response | URL): Promise<BufferSource> {
  if (given instanceof URL) return bytesOf(await fetch(given));
  if (typeof Response === "undefined" || !(given instanceof Response)) return given as BufferSource;
  if (!given.ok) {
    throw new GateError("unsupported", `the module was answered with status \`${given.status}\`: ${HINT}`);
  }
  return given.arrayBuffer();
}

/** What a new instance exports of a module that imports nothing; refuses one that does. @internal */
export function instantiate(module: WebAssembly.Module): WebAssembly.Exports {
  const [imported] = WebAssembly.Module.imports(module);
  if (imported) {
    throw new GateError(
      "unsupported",
      `the module imports \`${imported.module}.${imported.name}\`: gate.wasm imports nothing, load that one`,
    );
  }
  return new WebAssembly.Instance(module, {}).exports;
}

/** The ABI that a module with the plain ABI exports. @internal */
export function abiOf({ gate_abi_major }: WebAssembly.Exports): number | undefined {
  return gate_abi_major instanceof WebAssembly.Global ? gate_abi_major.value : undefined;
}

/** The ABI that this package speaks. */
const ABI_MAJOR = 1;

/** Refuses a module of another ABI, and one that has none. @internal */
export function refuseOtherAbi(major: number | undefined): void {
  if (major === ABI_MAJOR) return;
  throw new GateError(
    "unsupported",
    `the module's ABI is \`${major ?? "none"}\`: this package speaks ${ABI_MAJOR}, use the module that comes with it`,
  );
}

/** Refuses a module with other reasons than this package's: their numbers would say something else. @internal */
export function refuseOtherReasons(reasons: string): void {
  if (reasons === REASONS_DIGEST) return;
  throw new GateError(
    "unsupported",
    `the module's reasons are \`${reasons}\`, this package's \`${REASONS_DIGEST}\`: use the module that comes with it`,
  );
}

/** Calls once, and again only after it failed. @internal */
export function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make().catch((error: unknown) => {
    made = undefined;
    throw error;
  }));
}
