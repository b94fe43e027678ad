// `node other-abi.mjs <plain|bindgen> <module>`: a module of another ABI is refused, and what comes after.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { WAYS, enrollmentRef, loadGate, nodeId } from "./rig.mjs";

const [, , way, path] = process.argv;
const { Guard, MemoryHost } = WAYS[way];
const module = readFileSync(path);
const refused = { name: "GateError", code: "unsupported", message: /ABI is `2`.* speaks 1/ };
await assert.rejects(loadGate({ module }, way), refused);

const host = new MemoryHost();
host.enroll(nodeId, { enrollmentRef });
const guard = new Guard({ gate: await loadGate({}, way), source: host, sink: host });
assert.equal(await guard.run({ tool: "tool.echo" }, () => "ran"), "ran");
// Where a gate is, it is refused as well, and the gate stays right.
await assert.rejects(loadGate({ module }, way), refused);
assert.equal(await guard.run({ tool: "tool.echo" }, () => "ran"), "ran");
console.log("it is refused");
