// A runtime of `cargo xtask test together`: docs/src/spec/conformance.md says what it is given and what it prints.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Denied, Gate, Guard, NativeHost } from "autonomy-gate";

const [, , url, tokenFile, bundle, key, tasks, ...nodeIds] = process.argv;
const host = new NativeHost({ url, tokenFile });
const guards = [];
for (const nodeId of nodeIds) {
  const gate = await Gate.load({
    bundle: readFileSync(bundle),
    trustedKeys: readFileSync(key, "utf8"),
    nodeId,
    mode: "enforce",
  });
  guards.push(new Guard({ gate, source: host, sink: host, lookUpTimeoutMs: 30_000, appendTimeoutMs: 30_000 }));
}

async function call(guard) {
  const beganUs = Date.now() * 1_000;
  const say = (auditId, answer) => console.log([beganUs, guard.gate.nodeId, auditId, answer].join("\t"));
  let permit;
  try {
    permit = await guard.ask({ tool: "tool.echo" });
  } catch (error) {
    if (!(error instanceof Denied)) throw error;
    return say(error.auditId, error.reason);
  }
  await permit.finish("completed");
  say(permit.auditId, "allow");
}

console.log("ready");
for await (const line of createInterface(process.stdin)) {
  const calls = Number(line);
  let made = 0;
  const task = async () => {
    while (made < calls) await call(guards[made++ % guards.length]);
  };
  await Promise.all(Array.from({ length: Number(tasks) }, task));
}
