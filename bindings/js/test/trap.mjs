// `node trap.mjs <plain|bindgen> <module>`: a module that traps when it is asked to, and what comes after.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { WAYS, denied, enrollmentRef, loadGate, nodeId } from "./rig.mjs";

const [, , way, path] = process.argv;
const { Guard, MemoryHost } = WAYS[way];
const module = new WebAssembly.Module(readFileSync(path));
let instances = 0;
WebAssembly.Instance = class extends WebAssembly.Instance {
  constructor(...given) {
    super(...given);
    instances += 1;
  }
};
const host = new MemoryHost();
host.enroll(nodeId, { enrollmentRef });
const guardOn = async () => new Guard({ gate: await loadGate({ module }, way), source: host, sink: host });
const [guard, other] = [await guardOn(), await guardOn()];
const allowed = async (on) => assert.equal(await on.run({ tool: "tool.echo" }, () => "ran"), "ran");
await allowed(guard);

for (let round = 0; round < 3; round += 1) {
  // It traps in the new instance as well: nobody can put it into frames.
  const error = await denied(guard.run({ tool: "gate.trap" }, () => assert.fail("it ran")), "audit: wal_unavailable");
  assert.equal(error.status, 503);
  const before = instances;
  await allowed(guard);
  assert.equal(instances, before + 1);
}
host.frames.length = 0;
for (let call = 0; call < 1000; call += 1) {
  await allowed(guard);
  // Another gate knows nothing of it.
  await allowed(other);
}
const decisions = host.frames.filter(({ kind }) => kind === "autonomy.decision");
assert.deepEqual([decisions.length, new Set(decisions.map(({ audit_id }) => audit_id)).size], [2000, 2000]);
assert.ok(decisions.every(({ attrs }) => attrs.outcome === "allow"));

const batch = guard.gate.decideBatch([{ tool: "tool.echo" }, { tool: "gate.trap" }, { tool: "tool.echo" }]);
assert.deepEqual(batch.map(({ effect }) => effect), ["allow", "deny", "allow"]);
console.log("1000 calls are right");
