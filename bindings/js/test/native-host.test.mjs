// The native host over HTTP: its contract, and every way in which it can fail.
import assert from "node:assert/strict";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Guard, NativeHost } from "autonomy-gate";
import { NativeHost as WebHost } from "autonomy-gate/inline";
import { PATIENT, contract, denied, loadGate, row, token } from "./rig.mjs";
import { directory } from "./support.mjs";

async function guarded(host, times = {}) {
  return new Guard({ gate: await loadGate(), source: host, sink: host, ...PATIENT, ...times });
}

/** A host that does not answer. */
const silent = () => {};

for (const [name, Host] of Object.entries({ node: NativeHost, web: WebHost })) {
  test(`a call over HTTP, ${name}`, async (t) => {
    const rig = await contract(t);
    const host = new Host({ url: rig.url, token });
    assert.equal(await host.health(), true);
    const guard = await guarded(host);
    const permit = await guard.ask({ tool: "tool.echo" });
    await permit.finish();
    assert.deepEqual(rig.frames.map(({ kind }) => kind), ["autonomy.facts", "autonomy.decision", "autonomy.action"]);
    const post = rig.requests.find(({ method }) => method === "POST");
    assert.equal(post.headers["content-type"], "application/json");
    assert.match(post.body, /^\{"frames":\[\{"kind":"autonomy\.facts",/);

    rig.enrolled = false;
    await denied(guard.ask({ tool: "tool.echo" }), "attestation: not_enrolled");
    rig.facts.clear();
    rig.enrolled = true;
    await guard.ask({ tool: "tool.echo" });
  });

  test(`every fault of a look-up denies, ${name}`, async (t) => {
    const rig = await contract(t);
    const faults = {
      "longer than 1000 ms": silent,
      "`503`: too busy": (request, response, say) => say(503, { error: "too busy" }),
      "`404`": (request, response, say) => say(404, {}),
      "`500`": (request, response, say) => say(500, "not an object"),
      "malformed": (request, response, say) => say(200, []),
      "malformed: .*`sure` is not known": (request, response, say) => say(200, { answer: "sure" }),
      "for node": (request, response, say) =>
        say(200, { answer: "enrolled", enrollment: row({ node_id: "robot-8" }), observed_at_ms: Date.now() }),
      "longer than 65536 bytes": (request, response) => response.end(Buffer.alloc(100_000, "x")),
      ".": (request) => request.socket.destroy(),
      "..": (request, response) => {
        response.setHeader("content-length", "100");
        response.write("{");
        setTimeout(() => request.socket.destroy(), 10);
      },
      "...": (request, response) => {
        response.statusCode = 302;
        response.setHeader("location", "/v1/health");
        response.end();
      },
    };
    for (const [why, fault] of Object.entries(faults)) {
      const guard = await guarded(new Host({ url: rig.url, token }), fault === silent ? { lookUpTimeoutMs: 1_000 } : {});
      rig.frames.length = 0;
      rig.fault = (request, response, say) => (request.method === "GET" ? fault(request, response, say) : "pass");
      rig.requests.length = 0;
      await denied(guard.ask({ tool: "tool.echo" }), "attestation: enrollment_unavailable");
      // What was answered is not asked for again.
      if (why.startsWith("`")) assert.equal(rig.requests.filter(({ method }) => method === "GET").length, 1);
      assert.match(rig.frames[0].attrs.facts.enrollment.why, new RegExp(why));
    }
  });

  test(`every fault of an append denies, and is not tried again, ${name}`, async (t) => {
    const rig = await contract(t);
    const answers = [201, 204, 302, 400, 401, 413, 500, 503].map((status) => (request, response, say) => say(status, { error: "no" }));
    const faults = [...answers, silent, (request) => request.socket.destroy()];
    for (const fault of faults) {
      const guard = await guarded(new Host({ url: rig.url, token }), fault === silent ? { appendTimeoutMs: 1_000 } : {});
      rig.fault = (request, response, say) => (request.method === "POST" ? fault(request, response, say) : "pass");
      rig.requests.length = 0;
      const error = await denied(guard.ask({ tool: "tool.echo" }), "audit: wal_unavailable");
      assert.equal(error.status, 503);
      assert.equal(rig.requests.filter(({ method }) => method === "POST").length, 1);
    }
    // A log that never has the facts is asked twice, and no more.
    rig.fault = (request, response, say) => (request.method === "POST" ? say(409, {}) : "pass");
    rig.requests.length = 0;
    await denied((await guarded(new Host({ url: rig.url, token }))).ask({ tool: "tool.echo" }), "audit: wal_unavailable");
    assert.equal(rig.requests.filter(({ method }) => method === "POST").length, 2);
  });

  test(`a look-up is tried again, and a wrong token or a host that is down denies, ${name}`, async (t) => {
    const rig = await contract(t);
    let first = true;
    rig.fault = (request) => {
      if (!first) return "pass";
      first = false;
      return request.socket.destroy();
    };
    await (await guarded(new Host({ url: rig.url, token }))).ask({ tool: "tool.echo" });
    await denied((await guarded(new Host({ url: rig.url, token: "wrong" }))).ask({ tool: "tool.echo" }), "audit: wal_unavailable");
    rig.stop();
    const host = new Host({ url: rig.url, token });
    assert.equal(await host.health(), false);
    await denied((await guarded(host)).ask({ tool: "tool.echo" }), "audit: wal_unavailable");
  });
}

test("a Unix socket, and a token that nobody else can read", async (t) => {
  const place = directory({ token: `${token}\n` });
  const socket = join(place, "host.sock");
  await contract(t, { path: socket });
  const tokenFile = join(place, "token");
  chmodSync(tokenFile, 0o640);
  assert.throws(() => new NativeHost({ socket, tokenFile }), { code: "refused", message: /mode `640`.*chmod 600/ });
  chmodSync(tokenFile, 0o600);
  await (await guarded(new NativeHost({ socket, tokenFile }))).ask({ tool: "tool.echo" });
});

test("options that would leak the token or mean nothing are refused", () => {
  const place = directory();
  writeFileSync(join(place, "empty"), "\n", { mode: 0o600 });
  const refused = (options, message) => assert.throws(() => new NativeHost(options), { name: "GateError", message });
  refused({ url: "http://10.0.0.1:7778", token }, /not loopback/);
  refused({ url: "http://127.0.0.1.example.org", token }, /not loopback/);
  refused({ url: "ftp://127.0.0.1", token }, /not loopback/);
  refused({ url: "no address", token }, /is no address/);
  refused({ token }, /give `url` or `socket`/);
  refused({ url: "http://127.0.0.1:1", socket: "s", token }, /give `url` or `socket`/);
  refused({ url: "http://127.0.0.1:1" }, /give `token` or `tokenFile`/);
  refused({ url: "http://127.0.0.1:1", token: "two\nlines" }, /the token/);
  refused({ url: "http://127.0.0.1:1", tokenFile: join(place, "empty") }, /the token/);
  refused({ url: "http://127.0.0.1:1", token, retries: 3 }, /unknown member `retries`/);
  new NativeHost({ url: "https://host.example.org", token });
  new NativeHost({ url: "http://[::1]:7778", token });
  assert.throws(() => new WebHost({ socket: "s", token }), { name: "GateError" });
  assert.throws(() => new WebHost({ url: "http://127.0.0.1:1", tokenFile: "t" }), { name: "GateError" });
});
