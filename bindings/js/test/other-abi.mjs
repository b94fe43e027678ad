// `node other-abi.mjs <plain|bindgen>`: a module of another ABI is refused, and what comes after.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { WAYS, enrollmentRef, loadGate, nodeId } from "./rig.mjs";
import { root, shipped } from "./support.mjs";

/** The module that the package ships for bindgen, with one text in the place of another that is as long. */
function doctored(text, other) {
  const bytes = readFileSync(shipped.bindgen);
  const at = bytes.indexOf(text);
  assert.ok(at >= 0, `the module holds no \`${text}\``);
  bytes.write(other, at);
  return bytes;
}

const [, , way] = process.argv;
const others = {
  plain: [[readFileSync(join(root, "target/gate-abi-2.wasm")), /ABI is `2`.* speaks 1/]],
  bindgen: [
    // In what it says of itself, the two numbers of its ABI change their names: 1.0 becomes 0.1.
    [doctored("majorminor", "minormajor"), /ABI is `0`.* speaks 1/],
    [doctored("enrollment_revoked", "enrollment_revoced"), /reasons are `sha256:\w+`, this package's `sha256:/],
    // Imports are named otherwise in each version of wasm-bindgen.
    [doctored("__wbg_parse_", "__wbg_prase_"), /does not start .*__wbg_prase_.*use the module that comes with/],
  ],
}[way];
const refused = (module, message) => assert.rejects(loadGate({ module }, way), { name: "GateError", code: "unsupported", message });
for (const [module, message] of others) await refused(module, message);

const { Guard, MemoryHost } = WAYS[way];
const host = new MemoryHost();
host.enroll(nodeId, { enrollmentRef });
const guard = new Guard({ gate: await loadGate({}, way), source: host, sink: host });
assert.equal(await guard.run({ tool: "tool.echo" }, () => "ran"), "ran");
// Where a gate is, it is refused as well, and the gate stays right. The glue's one module is then taken.
for (const [module, message] of others) await refused(module, way === "bindgen" ? /another module is loaded/ : message);
assert.equal(await guard.run({ tool: "tool.echo" }, () => "ran"), "ran");
console.log("it is refused");
