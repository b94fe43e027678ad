// `node trap.mjs <plain|bindgen> <module>`: a module that traps when it is asked to, and what comes after.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { goodBundle } from "./support.mjs";

const [, , name, path] = process.argv;
const { Gate } = await import(name === "plain" ? "autonomy-gate" : "autonomy-gate/bindgen");
const { bundle, trustedKeys, accepted } = goodBundle();
const module = new WebAssembly.Module(readFileSync(path));
const load = async () => {
  const gate = await Gate.load({ module, bundle, trustedKeys, nodeId: "robot-7", mode: "enforce" });
  const enrollment = {
    node_id: "robot-7",
    enrollment_ref: accepted.enrollment_ref,
    status: "active",
    rollout_state: "<none>",
    serial: 1,
  };
  gate.setEnrollment({ answer: "enrolled", enrollment, observed_at_ms: Date.now() });
  return gate;
};
const [gate, other] = [await load(), await load()];
const before = gate.decide({ tool: "tool.echo" });
assert.equal(before.effect, "allow");

for (let round = 0; round < 3; round += 1) {
  // It traps in the new instance as well: nobody can put it into frames.
  const trapped = gate.decide({ tool: "gate.trap" });
  assert.deepEqual([trapped.effect, trapped.reason, trapped.facts, trapped.frames.json], ["deny", "audit: wal_unavailable", null, "[]"]);
}
for (let i = 0; i < 1000; i += 1) {
  const call = { tool: "tool.echo", factsLogged: before.facts, auditId: "a", nowMs: before.nowMs ?? Date.now() };
  const [one, two] = [gate.decide(call), other.decide(call)];
  assert.deepEqual([one.effect, one.facts, [...one.frames].length], ["allow", before.facts, 1]);
  // Another gate knows nothing of it.
  assert.equal(two.effect, "allow");
}
const batch = gate.decideBatch([{ tool: "tool.echo" }, { tool: "gate.trap" }, { tool: "tool.echo" }]);
assert.deepEqual(batch.map(({ effect }) => effect), ["allow", "deny", "allow"]);
console.log("1000 calls are right");
