// A thread of its own, with a gate of its own: makes its calls, and says which there were.
import { parentPort, workerData } from "node:worker_threads";
import { WAYS, loadGate } from "./rig.mjs";

const { way, module, url, token, thread, calls, times } = workerData;
const { Guard, NativeHost } = WAYS[way];
const host = new NativeHost({ url, token });
const guard = new Guard({ gate: await loadGate({ module }, way), source: host, sink: host, ...times });
const called = [];
for (let call = 0; call < calls; call += 1) {
  const tool = `thread.${thread}-${call}`;
  const { auditId } = await guard.ask({ tool });
  called.push([auditId, tool]);
}
parentPort.postMessage(called);
