// The faults of docs/src/spec/conformance.md, each played on a guard: the call is denied as the table says, its tool does not
// run, and the next call after the fault is right. What the host does is played over HTTP.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { PATIENT, WAYS, contract, denied, loadGate, nodeId, row, token } from "./rig.mjs";
import { at, conforms, engine, run, shipped, trapping } from "./support.mjs";

const TIMEOUT_MS = 1_000;
const UNAVAILABLE = ["attestation: enrollment_unavailable", 403];
const UNRECORDED = ["audit: wal_unavailable", 503];

/** A fault, which is said to have been played on an engine once its test has passed. */
function fault(name, play) {
  for (const way of Object.keys(WAYS)) {
    test(`${name}, ${way}`, async (t) => {
      await play(t, way);
      conforms({ engine: engine(way), fault: name });
    });
  }
}

/** A host, a guard on it, and how many of its tools ran. */
async function rig(t, way, { mode = "enforce", ...options } = {}) {
  const { Guard, NativeHost } = WAYS[way];
  const server = await contract(t);
  const host = new NativeHost({ url: server.url, token });
  const guard = new Guard({ gate: await loadGate({ mode }, way), source: host, sink: host, ...PATIENT, ...options });
  const the = { server, guard, ran: 0 };
  the.call = () => guard.run({ tool: "tool.echo" }, () => (the.ran += 1));
  /** Denied for this reason, with this status, and the tool has not run. */
  the.refused = async ([reason, status]) => {
    const before = the.ran;
    const error = await denied(the.call(), reason);
    assert.equal(error.status, status);
    assert.equal(the.ran, before);
    return error;
  };
  /** The fault is gone: the next call is allowed, and written down. */
  the.right = async () => {
    server.fault = null;
    const before = the.ran;
    await the.call();
    assert.equal(the.ran, before + 1);
    const decisions = server.frames.filter(({ kind }) => kind === "autonomy.decision");
    assert.equal(decisions.at(-1).attrs.outcome, "allow");
  };
  return the;
}

const lookUps = (answer) => (request, ...rest) => (request.method === "GET" ? answer(request, ...rest) : "pass");
const appends = (answer) => (request, ...rest) => (request.method === "POST" ? answer(request, ...rest) : "pass");

const halfABody = (request, response) => {
  response.setHeader("content-length", "100");
  response.write('{"answer":');
  setTimeout(() => request.socket.destroy(), 10);
};

fault("host_down", async (t, way) => {
  for (const mode of ["off", "advisory", "enforce"]) {
    const { server, refused, right } = await rig(t, way, { mode });
    await right();
    server.stop();
    await refused(UNRECORDED);
    await server.start();
    await right();
  }
});

fault("source_down", async (t, way) => {
  let down = true;
  const source = {
    lookUp: async () => {
      if (down) throw new Error("connection refused");
      return { answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() };
    },
  };
  const { server, refused, right } = await rig(t, way, { source });
  const { auditId } = await refused(UNAVAILABLE);
  const written = server.frames.filter(({ audit_id, kind }) => audit_id === auditId && kind === "autonomy.decision");
  assert.deepEqual(written.map(({ attrs }) => attrs.reason), ["policy: allowed", UNAVAILABLE[0]]);
  down = false;
  await right();
});

fault("host_slow", async (t, way) => {
  const cases = [
    [lookUps(() => {}), { lookUpTimeoutMs: TIMEOUT_MS }, UNAVAILABLE],
    [appends(() => {}), { appendTimeoutMs: TIMEOUT_MS }, UNRECORDED],
  ];
  for (const [slow, times, answer] of cases) {
    const { server, refused, right } = await rig(t, way, times);
    server.fault = slow;
    const started = performance.now();
    await refused(answer);
    const tookMs = performance.now() - started;
    assert.ok(tookMs >= TIMEOUT_MS - 1 && tookMs < TIMEOUT_MS + 15_000, `${tookMs} ms`);
    await right();
  }
});

fault("host_lying", async (t, way) => {
  const { server, refused, right } = await rig(t, way);
  const lies = {
    "no answer": (request, response, say) => say(200, { answer: "sure" }),
    "an end before its beginning": (request, response, say) => say(200, { first_seq: 8, last_seq: 7 }),
    "no JSON": (request, response) => response.end("<html>"),
    "another node's row": (request, response, say) =>
      say(200, { answer: "enrolled", enrollment: row({ node_id: "robot-8" }), observed_at_ms: Date.now() }),
    "half a body": halfABody,
  };
  for (const lie of Object.values(lies)) {
    server.fault = lookUps(lie);
    await refused(UNAVAILABLE);
    await right();
  }

  // 4 GiB, announced and not: nobody takes more than a little of it, and it is over when that is clear.
  for (const announced of [true, false]) {
    let sent = 0;
    server.fault = lookUps((request, response) => {
      if (announced) response.setHeader("content-length", `${2 ** 32}`);
      const piece = Buffer.alloc(1 << 16, " ");
      const more = () => {
        while (sent < 2 ** 32 && !response.destroyed) {
          sent += piece.length;
          if (!response.write(piece)) return response.once("drain", more);
        }
      };
      more();
    });
    await refused(UNAVAILABLE);
    assert.ok(sent < 64 * 2 ** 20, `${sent} bytes were sent`);
    await right();
  }
});

fault("append_lying", async (t, way) => {
  const { server, refused, right } = await rig(t, way);
  const lies = {
    "no receipt": (request, response, say) => say(200, { durable: true }),
    "no numbers": (request, response, say) => say(200, { first_seq: "1", last_seq: null }),
    "no JSON": (request, response) => response.end("OK"),
    "nothing": (request, response) => response.end(),
    "500": (request, response, say) => say(500, {}),
    "a redirect": (request, response) => response.writeHead(307, { location: "/v1/health" }).end(),
    "half a body": halfABody,
  };
  for (const lie of Object.values(lies)) {
    server.fault = appends(lie);
    server.requests.length = 0;
    const { auditId } = await refused(UNRECORDED);
    assert.equal(server.requests.filter(({ body }) => body.includes(auditId)).length, 1, "sent once");
    await right();
  }
});

fault("disk_full", async (t, way) => {
  const { server, refused, right } = await rig(t, way);
  server.fault = appends((request, response, say) => say(503, { error: "the log failed: no space left on device" }));
  const { cause } = await refused(UNRECORDED);
  assert.match(cause.message, /`503`: the log failed: no space left/);
  await right();
});

fault("facts_lost", async (t, way) => {
  const { server, right } = await rig(t, way);
  await right();
  server.facts.clear();
  server.requests.length = 0;
  await right();
  const [first, second, ...others] = server.requests.filter(({ body }) => body.includes("autonomy.decision"));
  const kinds = ({ body }) => JSON.parse(body).frames.map(({ kind }) => kind);
  assert.deepEqual([kinds(first), kinds(second), others], [["autonomy.decision"], ["autonomy.facts", "autonomy.decision"], []]);
});

fault("token_wrong", async (t, way) => {
  const { server, refused, right } = await rig(t, way);
  server.fault = (request, response, say) => say(401, { error: "the token is wrong" });
  await refused(UNRECORDED);
  await right();
});

// wasm-bindgen's glue has one module a process, so that these two have one of their own.
fault("other_abi", async (t, way) => {
  assert.match(await run(process.execPath, [at("other-abi.mjs"), way]), /it is refused/);
});

fault("trap", async (t, way) => {
  assert.match(await run(process.execPath, [at("trap.mjs"), way, trapping[way]]), /1000 calls are right/);
});

fault("threads", async (t, way) => {
  const [TASKS, CALLS] = [64, 100];
  const { Guard, NativeHost } = WAYS[way];
  const server = await contract(t);
  // One gate for all tasks of a thread: its look-ups and appends overtake each other.
  const gate = await loadGate({}, way);
  const host = new NativeHost({ url: server.url, token });
  const guard = new Guard({ gate, source: host, sink: host, ...PATIENT });
  const tools = await Promise.all(
    Array.from({ length: TASKS }, async (_, task) => {
      const mine = [];
      for (let call = 0; call < CALLS; call += 1) {
        const tool = `tool.${task}-${call}`;
        const { auditId } = await guard.ask({ tool });
        mine.push([auditId, tool]);
      }
      return mine;
    }),
  );
  // Threads share the compiled module and the log; each has a gate of its own.
  const module = new WebAssembly.Module(readFileSync(shipped[way]));
  const threads = await Promise.all(
    Array.from({ length: 4 }, (_, thread) => {
      const workerData = { way, module, url: server.url, token, thread, calls: CALLS, times: PATIENT };
      const worker = new Worker(new URL("thread.mjs", import.meta.url), { workerData });
      return new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    }),
  );
  const called = [...tools, ...threads].flat();
  assert.equal(called.length, (TASKS + threads.length) * CALLS);
  assert.equal(new Set(called.map(([auditId]) => auditId)).size, called.length);
  const decisions = server.frames.filter(({ kind }) => kind === "autonomy.decision");
  const logged = decisions.map(({ audit_id, node_id, attrs }) => {
    assert.deepEqual([node_id, attrs.outcome, attrs.reason], [nodeId, "allow", "policy: allowed"]);
    return [audit_id, attrs.tool];
  });
  assert.deepEqual(logged.sort(), called.sort());
});
