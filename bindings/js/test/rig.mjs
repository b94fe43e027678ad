// A gate that allows, a host that speaks the contract, and what a denial must be.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import * as bindgen from "autonomy-gate/bindgen";
import * as plain from "autonomy-gate";
import { goodBundle } from "./support.mjs";

const good = goodBundle();

/** The ways into the gate that Node has; what is around the gate is the same in both. */
export const WAYS = { plain, bindgen };

export const nodeId = "robot-7";
export const enrollmentRef = good.accepted.enrollment_ref;
export const token = "s3cret-token";

/** Where nothing fails, a machine that is busy with other things must not count as a fault. */
export const PATIENT = { lookUpTimeoutMs: 60_000, appendTimeoutMs: 60_000 };

/** The node's row, active and with the bundle's ref, but for what is said. */
export const row = (over = {}) => ({
  node_id: nodeId,
  enrollment_ref: enrollmentRef,
  status: "active",
  rollout_state: "<none>",
  serial: 1,
  ...over,
});

export const loadGate = (over = {}, way = "plain") =>
  WAYS[way].Gate.load({ bundle: good.bundle, trustedKeys: good.trustedKeys, nodeId, mode: "enforce", ...over });

/** What a promise is rejected with: a denial, for this reason. */
export async function denied(promise, reason) {
  const error = await promise.then(() => assert.fail("it was allowed"), (thrown) => thrown);
  assert.ok(error instanceof plain.Denied, error.stack);
  assert.equal(error.reason, reason);
  return error;
}

/** A small host of the contract, in this process. `fault` answers in its place, unless it says `pass`. */
export async function contract(t, where = { port: 0, host: "127.0.0.1" }) {
  const rig = { requests: [], frames: [], facts: new Set(), fault: null, enrolled: true };
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    rig.requests.push({ method: request.method, path: request.url, headers: request.headers, body });
    const say = (status, document) => {
      response.statusCode = status;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(document));
    };
    if (rig.fault !== null && (await rig.fault(request, response, say)) !== "pass") return;
    if (request.headers.authorization !== `Bearer ${token}`) return say(401, { error: "the token is wrong" });
    if (request.method === "GET" && request.url === "/v1/health") return say(200, { status: "ok" });
    if (request.method === "GET" && request.url === `/v1/enrollments/${nodeId}`) {
      const observed_at_ms = Date.now();
      return say(200, rig.enrolled ? { answer: "enrolled", enrollment: row(), observed_at_ms } : { answer: "not_enrolled", observed_at_ms });
    }
    if (request.method === "POST" && request.url === "/v1/frames") {
      const { frames } = JSON.parse(body);
      for (const { kind, attrs } of frames) if (kind === "autonomy.facts") rig.facts.add(attrs.id);
      const decided = frames.filter(({ kind }) => kind === "autonomy.decision");
      if (decided.some(({ attrs }) => !rig.facts.has(attrs.facts))) return say(409, { error: "facts are not in the log" });
      rig.frames.push(...frames);
      return say(200, { first_seq: rig.frames.length - frames.length + 1, last_seq: rig.frames.length });
    }
    return say(404, { error: "no such path" });
  });
  rig.start = async () => {
    server.listen(where);
    await once(server, "listening");
    // Where it is started again, it is found again.
    where = typeof server.address() === "string" ? where : server.address();
  };
  rig.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  await rig.start();
  t.after(rig.stop);
  rig.url = `http://127.0.0.1:${where.port}`;
  return rig;
}
