// From a call to a permit: what is looked up, decided, written down, and what each failure becomes.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FactsNotLogged, Guard, MemoryHost, gateFetch, gateHttp } from "autonomy-gate";
import { denied, enrollmentRef, loadGate, nodeId, row } from "./rig.mjs";
import { eventually } from "./support.mjs";

async function rig(options = {}, load = {}) {
  const gate = await loadGate(load);
  const host = new MemoryHost();
  host.enroll(nodeId, { enrollmentRef });
  return { gate, host, guard: new Guard({ gate, source: host, sink: host, ...options }) };
}

const reasons = (frames) => frames.filter(({ kind }) => kind === "autonomy.decision").map(({ attrs }) => attrs.reason);

test("a permit comes with its frames, and says once how the tool went", async () => {
  const { guard, host } = await rig();
  const permit = await guard.ask({ tool: "tool.echo", policyRef: "fleet@1", policy: "policy: allowed" });
  assert.deepEqual(host.frames.map(({ kind }) => kind), ["autonomy.facts", "autonomy.decision"]);
  assert.equal(host.frames[1].attrs.policy_ref, "fleet@1");
  await permit.finish("failed");
  await permit.finish("completed");
  permit[Symbol.dispose]();
  const [, , action, ...rest] = host.frames;
  assert.deepEqual(rest, []);
  assert.deepEqual([action.kind, action.audit_id, action.node_id], ["autonomy.action", permit.auditId, nodeId]);
  assert.deepEqual([action.attrs.tool, action.attrs.outcome], ["tool.echo", "failed"]);
  assert.ok(Number.isInteger(action.attrs.took_ms));
});

test("a revoke denies the next call, and the facts are logged when they change", async () => {
  const { guard, host } = await rig();
  for (let i = 0; i < 5; i += 1) await guard.ask({ tool: "tool.echo" });
  assert.equal(host.frames.filter(({ kind }) => kind === "autonomy.facts").length, 1);
  host.revoke(nodeId);
  const error = await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_revoked");
  assert.equal(error.status, 403);
  assert.deepEqual(JSON.parse(JSON.stringify(error)), {
    decision: "deny",
    reason: "attestation: enrollment_revoked",
    policy_ref: null,
    audit_id: error.auditId,
  });
  assert.equal(host.frames.filter(({ kind }) => kind === "autonomy.facts").length, 2);
  assert.deepEqual(reasons(host.frames).slice(-2), ["policy: allowed", "attestation: enrollment_revoked"]);
});

test("what was told is told again once half of its time is over", async () => {
  const agesMs = [59, 31, 29, 0].map((minutes) => minutes * 60_000);
  const lookUp = async () => ({ answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() - agesMs.shift() });
  const { guard, host } = await rig({ source: { lookUp } }, { maxStalenessMs: 3_600_000 });
  for (let i = 0; i < 4; i += 1) await guard.ask({ tool: "tool.echo" });
  assert.equal(host.frames.filter(({ kind }) => kind === "autonomy.facts").length, 3);
});

test("advisory lets through what enforce denies, and writes it down", async () => {
  const { guard, host } = await rig({}, { mode: "advisory" });
  host.revoke(nodeId);
  await guard.ask({ tool: "tool.echo" });
  const [, , frame] = host.frames;
  assert.deepEqual([frame.attrs.reason, frame.attrs.enforced], ["attestation: enrollment_revoked", false]);
});

test("a source that fails, is slow or lies has not answered", async () => {
  const unavailable = "attestation: enrollment_unavailable";
  const sources = {
    "connection refused": async () => {
      throw new Error("connection refused");
    },
    "longer than 50 ms": () => new Promise(() => {}),
    "malformed: no value": async () => "<html>",
    "`observed_at_ms`: is missing": async () => ({ answer: "not_enrolled" }),
    "the source answered for node": async () => ({
      answer: "enrolled",
      enrollment: row({ node_id: "robot-8" }),
      observed_at_ms: Date.now(),
    }),
    "is not a function": undefined,
  };
  for (const [why, lookUp] of Object.entries(sources)) {
    const { guard, host } = await rig({ source: { lookUp }, lookUpTimeoutMs: 50 });
    await denied(guard.ask({ tool: "tool.echo" }), unavailable);
    assert.match(host.frames[0].attrs.facts.enrollment.why, new RegExp(why));
  }
  const cyclic = {};
  cyclic.itself = cyclic;
  for (const answer of [undefined, null, 7, [], cyclic]) {
    const { guard, host } = await rig({ source: { lookUp: async () => answer } });
    await denied(guard.ask({ tool: "tool.echo" }), unavailable);
    assert.match(host.frames[0].attrs.facts.enrollment.why, /malformed/);
  }
});

test("an answer that comes late because the event loop stalled is none", async () => {
  const lookUp = async () => {
    for (const untilMs = performance.now() + 50; performance.now() < untilMs; );
    return { answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() };
  };
  const { guard, host } = await rig({ source: { lookUp }, lookUpTimeoutMs: 20 });
  await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_unavailable");
  assert.equal(host.frames[0].attrs.facts.enrollment.why, "the look-up took longer than 20 ms");
});

test("what a source answers after an answer that allowed is never read as that one", async () => {
  const throwing = {
    get answer() {
      throw new Error("it throws");
    },
  };
  for (const nonsense of [{ lease: -1 }, { lease: 2 ** 53 }, { lease: 5n }, { lease: {} }, throwing, "x".repeat(68 * 2 ** 20)]) {
    const answers = [{ answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() }, nonsense];
    const { guard } = await rig({ source: { lookUp: async () => answers.shift() } });
    await guard.ask({ tool: "tool.echo" });
    await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_unavailable");
  }
});

test("an answer that only looks like the one before it, but for its time, is read", async () => {
  const allowed = JSON.stringify({ answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() });
  const time = /"observed_at_ms":\d+/.exec(allowed)[0];
  const nonsense = [
    allowed.replace(time, time.replace(":", ":000")),
    allowed.replace(`},${time}`, `${time}},`),
    allowed.replace(`,${time}}`, `${time},}`),
    allowed.replace("{", `{${time.replace(":", ":1.5,")},`),
  ];
  for (const answer of nonsense) {
    const answers = [allowed, answer];
    const { guard } = await rig({ source: { lookUp: async () => answers.shift() } });
    await guard.ask({ tool: "tool.echo" });
    await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_unavailable");
  }
});

test("whatever a source throws or gives, the call is denied and the next one right", async () => {
  const none = Object.create(null);
  const throws = () => {
    throw none;
  };
  const untold = Object.assign(new Error(), { message: none });
  const hostile = new Proxy({}, { get: throws, has: throws, ownKeys: throws, getPrototypeOf: throws });
  const long = { answer: "unavailable", why: "\n".repeat(20 * 2 ** 20) };
  for (const given of [undefined, null, NaN, Symbol("x"), none, untold, hostile, 5n, { lease: hostile }, { toJSON: throws }, long]) {
    for (const lookUp of [async () => given, () => Promise.reject(given), () => { throw given; }]) {
      const answers = [{ answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() }];
      const { guard, host, gate } = await rig({ source: { lookUp: () => answers.shift() ?? lookUp() } });
      await guard.ask({ tool: "tool.echo" });
      await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_unavailable");
      assert.equal(gate.verdict(), "attestation: enrollment_unavailable");
      assert.equal(host.frames.at(-1).attrs.reason, "attestation: enrollment_unavailable");
      answers.push({ answer: "enrolled", enrollment: row(), observed_at_ms: Date.now() });
      await guard.ask({ tool: "tool.echo" });
    }
  }
});

test("what a policy throws is written down, whatever it is", async () => {
  for (const thrown of [Object.create(null), Object.assign(new Error(), { message: {} }), new Error("x".repeat(299) + "\u{1f600}")]) {
    const { guard, host } = await rig({ policy: () => Promise.reject(thrown) });
    await denied(guard.ask({ tool: "tool.echo" }), "policy: evaluation_failed");
    assert.equal(host.frames.at(-1).attrs.reason, "policy: evaluation_failed");
  }
});

test("an answer counts as it was given, whatever its source makes of it later", async () => {
  const given = { answer: "enrolled", enrollment: row({ status: "revoked" }), observed_at_ms: Date.now() };
  const { guard } = await rig({ source: { lookUp: async () => given }, maxAgeMs: 60_000 });
  await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_revoked");
  given.enrollment.status = "active";
  await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_revoked");
});

test("an append that fails in any way denies, in every mode", async () => {
  const sinks = {
    fails: async () => {
      throw new Error("disk full");
    },
    throws: () => {
      throw new Error("disk full");
    },
    "is slow": () => new Promise(() => {}),
    "never has the facts": async () => {
      throw new FactsNotLogged();
    },
  };
  for (const mode of ["off", "advisory", "enforce"]) {
    for (const append of Object.values(sinks)) {
      const { guard } = await rig({ sink: { append }, appendTimeoutMs: 50 }, { mode });
      const error = await denied(guard.ask({ tool: "tool.echo" }), "audit: wal_unavailable");
      assert.equal(error.status, 503);
      assert.ok(error.cause instanceof Error);
    }
  }
});

test("a log without the facts gets them, this once", async () => {
  const { guard, host } = await rig();
  await guard.ask({ tool: "tool.echo" });
  // Another log: it knows nothing.
  let appends = 0;
  const known = new Set();
  host.append = async (frames) => {
    appends += 1;
    for (const { kind, attrs } of frames) {
      if (kind === "autonomy.facts") known.add(attrs.id);
      if (kind === "autonomy.decision" && !known.has(attrs.facts)) throw new FactsNotLogged();
    }
    host.frames.push(...frames);
  };
  const { auditId } = await guard.ask({ tool: "tool.echo" });
  assert.equal(appends, 2);
  assert.deepEqual(host.frames.filter(({ audit_id }) => audit_id === auditId).map(({ kind }) => kind), [
    "autonomy.facts",
    "autonomy.decision",
  ]);
  await guard.ask({ tool: "tool.echo" });
  assert.equal(appends, 3);
});

test("the policy is asked, and one without an answer denies", async () => {
  const asked = [];
  const answers = {
    "policy: denied": () => ({ policy: "policy: denied", policyRef: "fleet@1", policyDetail: "not today" }),
    "policy: undefined": () => undefined,
    "policy: evaluation_failed": () => {
      throw new Error("line 3");
    },
  };
  for (const [reason, answer] of Object.entries(answers)) {
    const { guard, host } = await rig({
      policy: (call) => {
        asked.push(call);
        return answer();
      },
    });
    await denied(guard.ask({ tool: "tool.echo", params: { a: 1 } }), reason);
    assert.deepEqual(reasons(host.frames), [reason]);
  }
  assert.deepEqual(asked[0], { tool: "tool.echo", params: { a: 1 } });
  const { guard } = await rig();
  await denied(guard.ask({ tool: "tool.echo", policy: "policy: denied" }), "policy: denied");
  for (const policy of [undefined, Object.create(null)]) {
    await assert.rejects(guard.ask({ tool: "tool.echo", policy }), { name: "GateError" });
  }
  await assert.rejects(guard.ask({ tool: "tool.echo", polciy: "policy: denied" }), { name: "GateError" });
});

test("a hundred calls at once each have their own frames", async () => {
  const { guard, host } = await rig();
  const permits = await Promise.all(Array.from({ length: 100 }, () => guard.ask({ tool: "tool.echo" })));
  const ids = new Set(permits.map(({ auditId }) => auditId));
  assert.equal(ids.size, 100);
  for (const id of ids) {
    assert.equal(host.frames.filter(({ kind, audit_id }) => kind === "autonomy.decision" && audit_id === id).length, 1);
  }
  assert.deepEqual([...ids].sort(), [...ids].sort((a, b) => (a < b ? -1 : 1)));
});

test("an answer stands for maxAgeMs, and no longer", async () => {
  const lenient = await rig({ maxAgeMs: 3_600_000 });
  await lenient.guard.ask({ tool: "tool.echo" });
  lenient.host.revoke(nodeId);
  await lenient.guard.ask({ tool: "tool.echo" });
  const { guard, host } = await rig({ maxAgeMs: 5 });
  await guard.ask({ tool: "tool.echo" });
  host.revoke(nodeId);
  await sleep(20);
  await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_revoked");
});

test("of two look-ups the one that began later counts", async () => {
  const { guard, host } = await rig();
  const first = { ...(await host.lookUp(nodeId)) };
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const lookUp = host.lookUp.bind(host);
  host.lookUp = () => held.then(() => first);
  const early = guard.ask({ tool: "tool.echo" });
  await sleep(5);
  host.revoke(nodeId);
  host.lookUp = lookUp;
  await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_revoked");
  release();
  await denied(early, "attestation: enrollment_revoked");
});

test("run says how the tool went", async () => {
  const { guard, host } = await rig();
  assert.equal(await guard.run({ tool: "tool.echo" }, () => 7), 7);
  await assert.rejects(guard.run({ tool: "tool.echo" }, () => Promise.reject(new Error("broke"))), /broke/);
  await sleep(1);
  const actions = host.frames.filter(({ kind }) => kind === "autonomy.action").map(({ attrs }) => attrs.outcome);
  assert.deepEqual(actions, ["completed", "failed"]);
});

test("node:http: a handler runs with a permit, and what is denied is answered", async (t) => {
  const { guard, host } = await rig();
  const gated = gateHttp(guard, {
    tool: (req) => {
      if (req.url === "/throws") throw new Error("a secret");
      return { tool: req.url === "/malformed" ? "no tool" : "tool.echo" };
    },
  });
  let ran = 0;
  const server = createServer((req, res) =>
    gated(req, res, () => {
      ran += 1;
      res.statusCode = req.url === "/fails" ? 500 : 200;
      res.end(req.auditId);
    }),
  ).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const get = async (path) => {
    const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`);
    return [response.status, await response.text()];
  };
  const [status, auditId] = await get("/");
  assert.equal(status, 200);
  assert.equal((await get("/fails"))[0], 500);
  const actions = () => host.frames.filter(({ kind }) => kind === "autonomy.action");
  // An action is written after the answer was given.
  await eventually(() => assert.deepEqual(actions().map(({ attrs }) => attrs.outcome), ["completed", "failed"]));
  assert.equal(actions()[0].audit_id, auditId);

  host.revoke(nodeId);
  const [deniedStatus, body] = await get("/");
  assert.equal(deniedStatus, 403);
  assert.match(body, /^\{"decision":"deny","reason":"attestation: enrollment_revoked","policy_ref":null,"audit_id":"[0-9a-f-]{36}"\}$/);
  assert.equal((await get("/malformed"))[0], 400);
  assert.deepEqual(await get("/throws"), [500, '{"error":"the call could not be decided"}']);
  host.fault = new Error("down");
  const [lost, said] = await get("/");
  assert.deepEqual([lost, JSON.parse(said).reason], [503, "audit: wal_unavailable"]);
  assert.equal(ran, 2);
});

test("node:http: nothing runs for a client that went away meanwhile", async (t) => {
  const { guard, host } = await rig();
  const append = host.append.bind(host);
  const gone = new Promise((resolve) => {
    host.append = async (frames) => {
      host.append = append;
      server.closeAllConnections();
      await sleep(20);
      await append(frames);
      setImmediate(resolve);
    };
  });
  let ran = 0;
  const gated = gateHttp(guard, { tool: () => "tool.echo" });
  const server = createServer((req, res) => gated(req, res, () => (ran += 1))).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  await assert.rejects(fetch(`http://127.0.0.1:${server.address().port}/`));
  await gone;
  await eventually(() => assert.equal(host.frames.at(-1).attrs.outcome, "abandoned"));
  assert.equal(ran, 0);
});

test("fetch: a handler runs with a permit, and what is denied is answered", async () => {
  const { guard, host } = await rig();
  const handler = gateFetch(guard, (request, permit, env) => new Response(`${permit.auditId} ${env}`, { status: 201 }), {
    tool: () => "tool.echo",
  });
  const response = await handler(new Request("http://localhost/"), "env");
  assert.equal(response.status, 201);
  assert.match(await response.text(), / env$/);
  const thrower = gateFetch(guard, () => Promise.reject(new Error("broke")), { tool: () => "tool.echo" });
  await assert.rejects(thrower(new Request("http://localhost/")), /broke/);
  await sleep(1);
  const actions = host.frames.filter(({ kind }) => kind === "autonomy.action").map(({ attrs }) => attrs.outcome);
  assert.deepEqual(actions, ["completed", "failed"]);
  host.revoke(nodeId);
  assert.equal((await handler(new Request("http://localhost/"), "env")).status, 403);
});
