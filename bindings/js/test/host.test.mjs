// `autonomy host serve`, the real one: a real token, a real log, a real kill, and a disk that is full.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import express from "express";
import { FactsNotLogged, Guard, NativeHost, gateHttp } from "autonomy-gate";
import { inChromium } from "./chromium.mjs";
import { PATIENT, denied, enrollmentRef, loadGate, nodeId } from "./rig.mjs";
import { at, autonomy, consumer, directory, freePort, goodBundle, readme, run, serve } from "./support.mjs";

const CALLERS = 16;

/** A node's host: what its operator would type. */
async function install(t) {
  const home = directory();
  const socket = join(home, "host.sock");
  const cli = (...args) => run(autonomy, ["--home", home, ...args]);
  await cli("host", "token");
  await cli("node", "enroll", "--node-id", nodeId, "--enrollment-ref", enrollmentRef);
  const the = { cli, socket, listen: "127.0.0.1:0", tokenFile: join(home, "host.token") };
  // No file of it may grow beyond so many KiB, which is to it as a full disk.
  the.start = async (fileKib = "unlimited") => {
    const args = ["--home", home, "host", "serve", "--listen", the.listen, "--socket", socket];
    const limited = ["-c", `ulimit -f ${fileKib}; exec "$0" "$@"`, autonomy, ...args];
    the.process = spawn("bash", limited, { stdio: ["ignore", "pipe", "inherit"] });
    the.listen = await listening(the.process);
  };
  the.end = async (signal) => {
    if (the.process.exitCode !== null || the.process.signalCode !== null) return;
    the.process.kill(signal);
    await once(the.process, "exit");
  };
  t.after(() => the.end("SIGKILL"));
  await the.start();
  return the;
}

/** Where a process says that it listens. */
async function listening(process) {
  for await (const line of createInterface(process.stdout)) {
    const found = /^listening on http:\/\/(\S+)/.exec(line);
    if (found) return found[1];
  }
  throw new Error("it ended before it listened");
}

for (const by of ["url", "socket"]) {
  test(`a node on \`autonomy host serve\`, by ${by}: a revoke, a kill, and a log that holds`, async (t) => {
    const node = await install(t);
    const { cli, tokenFile } = node;
    const host = new NativeHost({ ...(by === "url" ? { url: `http://${node.listen}` } : { socket: node.socket }), tokenFile });
    let conflicts = 0;
    const sink = {
      append: (frames, signal) =>
        host.append(frames, signal).catch((error) => {
          if (error instanceof FactsNotLogged) conflicts += 1;
          throw error;
        }),
    };
    const guard = new Guard({ gate: await loadGate(), source: host, sink, ...PATIENT });
    // It decides on what it knows, before and after.
    const hourMs = 3_600_000;
    const steady = new Guard({ gate: await loadGate({ maxStalenessMs: hourMs }), source: host, sink, maxAgeMs: hourMs, ...PATIENT });
    const ran = new Set();
    const call = () => guard.run({ tool: "tool.echo" }, ({ auditId }) => ran.add(auditId));

    assert.equal(await host.health(), true);
    await call();
    await cli("node", "revoke", "--node-id", nodeId);
    const revoked = await denied(call(), "attestation: enrollment_revoked");
    await cli("node", "enroll", "--node-id", nodeId, "--enrollment-ref", enrollmentRef);
    await call();

    await steady.ask({ tool: "tool.echo" });

    // Killed under load: from then on nothing runs.
    const untilDenied = async () => {
      for (;;) await call();
    };
    const callers = Array.from({ length: CALLERS }, () => denied(untilDenied(), "audit: wal_unavailable"));
    while (ran.size < 20 * CALLERS) await sleep(1);
    await node.end("SIGKILL");
    await Promise.all(callers);
    const before = ran.size;
    await denied(call(), "audit: wal_unavailable");
    assert.equal(ran.size, before);

    // The new host has written none of the facts: it says so, and gets them.
    await node.start();
    assert.equal(conflicts, 0);
    await steady.ask({ tool: "tool.echo" });
    assert.equal(conflicts, 1);
    await steady.ask({ tool: "tool.echo" });
    assert.equal(conflicts, 1);
    await call();

    const permit = await guard.ask({ tool: "tool.echo" });
    await permit.finish("failed");

    const other = new NativeHost({ url: `http://${node.listen}`, token: "x".repeat(43) });
    await denied(new Guard({ gate: await loadGate(), source: other, sink: other }).ask({ tool: "t" }), "audit: wal_unavailable");

    await node.end("SIGTERM");
    await cli("wal", "verify");
    const framesOf = async (kind) =>
      (await cli("wal", "inspect", "--kind", kind)).trim().split("\n").map((line) => JSON.parse(line));
    const decisions = await framesOf("autonomy.decision");
    const allowed = decisions.filter(({ attrs }) => attrs.reason === "policy: allowed").map(({ audit_id }) => audit_id);
    const missing = [...ran].filter((auditId) => !allowed.includes(auditId));
    assert.deepEqual(missing, [], "every tool that ran was written down before");
    const last = decisions.findLast(({ audit_id }) => audit_id === revoked.auditId);
    assert.deepEqual([last.attrs.outcome, last.attrs.reason], ["deny", "attestation: enrollment_revoked"]);
    const action = (await framesOf("autonomy.action")).findLast(({ audit_id }) => audit_id === permit.auditId);
    assert.deepEqual([action.attrs.tool, action.attrs.outcome], ["tool.echo", "failed"]);
  });
}

test("a node whose disk is full: a call is denied, and nothing that ran is missing in the log", async (t) => {
  const node = await install(t);
  await node.end("SIGTERM");
  await node.start(64);
  const host = new NativeHost({ socket: node.socket, tokenFile: node.tokenFile });
  const guard = new Guard({ gate: await loadGate(), source: host, sink: host, ...PATIENT });
  const ran = [];
  // Not finished: it is a decision that finds no room.
  const call = async () => ran.push((await guard.ask({ tool: "tool.echo" })).auditId);
  const untilDenied = async () => {
    for (let calls = 0; calls < 1000; calls += 1) await call();
  };
  const full = await denied(untilDenied(), "audit: wal_unavailable");
  assert.match(full.cause.message, /`503`.*ulimit -f/);
  assert(ran.length > 10, `${ran.length} calls`);
  await denied(call(), "audit: wal_unavailable");
  await node.end("SIGTERM");
  await node.start();
  await call();
  await node.end("SIGTERM");
  await node.cli("wal", "verify");
  const log = await node.cli("wal", "inspect", "--output", "json");
  assert.deepEqual(ran.filter((auditId) => !log.includes(auditId)), []);
  assert(!log.includes(full.auditId));
});

test("the example: a server on a node", async (t) => {
  const node = await install(t);
  const { bundle, trustedKeys } = goodBundle();
  const cwd = await consumer({
    "server.mjs": readFileSync(at("../examples/server.mjs")),
    "bundle.tar": bundle,
    "release.pub": trustedKeys[0],
  });
  const env = { ...process.env, AUTONOMY_NODE_ID: nodeId, AUTONOMY_HOST_TOKEN_FILE: node.tokenFile };
  const args = ["server.mjs", "bundle.tar", "release.pub", `http://${node.listen}`, "0"];
  const server = spawn(process.execPath, args, { cwd, env, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill());
  const url = `http://${await listening(server)}`;
  const moved = await fetch(url);
  assert.deepEqual([moved.status, (await moved.text()).slice(0, 7)], [200, "moved, "]);
  await node.cli("node", "revoke", "--node-id", nodeId);
  const refused = await fetch(url);
  assert.equal(refused.status, 403);
  const { audit_id, reason } = await refused.json();
  assert.equal(reason, "attestation: enrollment_revoked");
  assert.match(await node.cli("audit", "get", audit_id), /reason=attestation: enrollment_revoked/);
});

/** The README's program for a node, with this node's host, where it is installed. */
async function readmeOf(node, files) {
  const { bundle, trustedKeys } = goodBundle();
  const program = readme("## A node", "js").replace("http://127.0.0.1:7778", `http://${node.listen}`);
  const cwd = await consumer({ ...files(program), "bundle.tar": bundle, "release.pub.pem": trustedKeys[0] });
  copyFileSync(node.tokenFile, join(cwd, "host.token"));
  const env = { ...process.env, AUTONOMY_NODE_ID: nodeId };
  return (name) => run(process.execPath, [name], { cwd, env });
}

test("the README's node", async (t) => {
  const node = await install(t);
  const runs = await readmeOf(node, (program) => ({ "main.mjs": program }));
  assert.match(await runs("main.mjs"), /^the decision is on disk: the tool may run, once \S+\n$/);
  assert.match(await node.cli("wal", "inspect", "--kind", "autonomy.action"), /"tool":"arm\.move","outcome":"completed"/);
  await node.cli("node", "revoke", "--node-id", nodeId);
  assert.match(await runs("main.mjs"), /^403 \{"decision":"deny","reason":"attestation: enrollment_revoked"/);
});

test("the README's servers", async (t) => {
  const node = await install(t);
  const port = await freePort();
  const runs = await readmeOf(node, (program) => ({
    "servers.mjs": program.slice(0, program.indexOf("try {")) + readme("## Servers", "js").replace("8080", `${port}`),
    "main.mjs": `
      import served from "./servers.mjs";
      for (const answer of [await fetch("http://127.0.0.1:${port}/"), await served.fetch(new Request("http://robot/arm"))]) {
        console.log(answer.status, await answer.text());
      }
      process.exit();`,
  }));
  assert.match(await runs("main.mjs"), /^200 moved, [0-9a-f-]{36}\n200 moved, [0-9a-f-]{36}\n$/);
  assert.match(await node.cli("wal", "inspect", "--kind", "autonomy.decision"), /"tool":"http\.get"[^]*"tool":"arm\.move"/);
  await node.cli("node", "revoke", "--node-id", nodeId);
  assert.match(await runs("main.mjs"), /^(403 \{"decision":"deny","reason":"attestation: enrollment_revoked".*\n){2}$/);
});

test("Express 5: a gated route", async (t) => {
  const node = await install(t);
  const host = new NativeHost({ url: `http://${node.listen}`, tokenFile: node.tokenFile });
  const guard = new Guard({ gate: await loadGate(), source: host, sink: host, ...PATIENT });
  const ran = [];
  const app = express();
  app.use("/arm", gateHttp(guard, { tool: (req) => `arm${req.path.replaceAll("/", ".")}` }));
  app.post("/arm/move", (req, res) => {
    ran.push(req.auditId);
    res.send("moved");
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const post = () => fetch(`http://127.0.0.1:${server.address().port}/arm/move`, { method: "POST" });

  const moved = await post();
  assert.deepEqual([moved.status, await moved.text(), ran.length], [200, "moved", 1]);
  assert.match(await node.cli("audit", "get", ran[0]), /outcome=allow/);
  await node.cli("node", "revoke", "--node-id", nodeId);
  const refused = await post();
  const { decision, reason, audit_id } = await refused.json();
  assert.deepEqual([refused.status, decision, reason, ran.length], [403, "deny", "attestation: enrollment_revoked", 1]);
  const written = await node.cli("audit", "get", audit_id);
  assert.match(written, /tool=arm\.move/);
  assert.match(written, /reason=attestation: enrollment_revoked/);
});

test("a page gets nothing from a host", async (t) => {
  const node = await install(t);
  const place = await consumer({
    "index.html": `<script type="module">
      import { Gate, Guard, NativeHost } from "./node_modules/autonomy-gate/dist/esm/web.js";
      const token = ${JSON.stringify(readFileSync(node.tokenFile, "utf8").trim())};
      const host = new NativeHost({ url: "http://${node.listen}", token });
      const guard = new Guard({ gate: await Gate.load({ nodeId: "${nodeId}", mode: "off" }), source: host, sink: host });
      globalThis.result = await guard.ask({ tool: "arm.move" }).then(() => "allowed", (denied) => denied.reason);
    </script>`,
  });
  const server = await serve(place);
  t.after(server.close);
  assert.equal((await inChromium(`${server.url}/index.html`, undefined, 60_000)).result, "audit: wal_unavailable");
  const headers = { authorization: `Bearer ${readFileSync(node.tokenFile, "utf8").trim()}` };
  const health = (more) => fetch(`http://${node.listen}/v1/health`, { headers: { ...headers, ...more } });
  assert.deepEqual([(await health({})).status, (await health({ origin: server.url })).status], [200, 403]);
});
