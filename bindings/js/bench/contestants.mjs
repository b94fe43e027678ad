// What is measured: each answers whether the node of the fixture is enrolled, active, has the bundle's ref, and a rollout
// state that is one of four. `load` goes from nothing to being able to answer; whatever can be told once is told there.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const version = (name) => JSON.parse(readFileSync(at(`node_modules/${name}/package.json`), "utf8")).version;

/** The module that Open Policy Agent's compiler made of `gate.rego`. */
export const POLICY = process.env.AUTONOMY_GATE_OPA;

export const nodeId = "robot-7";

/** The first bundle of the corpus that is accepted. */
export function fixture() {
  const { bundles, keys } = JSON.parse(readFileSync(at("../../../tests/corpus/bundles.json"), "utf8"));
  const { tar, keys: names, accepted } = bundles.find((one) => one.accepted);
  const parts = tar.map((part) => (typeof part === "number" ? Buffer.alloc(part) : Buffer.from(part, "base64")));
  return { bundle: Buffer.concat(parts), trustedKeys: names.map((name) => keys[name]), enrollmentRef: accepted.enrollment_ref };
}

function row(enrollmentRef, status) {
  return { node_id: nodeId, enrollment_ref: enrollmentRef, status, rollout_state: "active", serial: 1 };
}

function gate(entry) {
  return async ({ bundle, trustedKeys, enrollmentRef }, status) => {
    const { Gate } = await import(entry);
    const options = { bundle, trustedKeys, nodeId, mode: "enforce", maxStalenessMs: 3_600_000 };
    const loaded = await Gate.load(options);
    loaded.setEnrollment({ answer: "enrolled", enrollment: row(enrollmentRef, status), observed_at_ms: Date.now() });
    const now = Date.now();
    return { gate: loaded, ask: () => loaded.verdict(now) === "pass" };
  };
}

async function opa({ enrollmentRef }, status) {
  const { loadPolicy } = await import("@open-policy-agent/opa-wasm");
  const policy = await loadPolicy(readFileSync(POLICY));
  policy.setData({ enrollment: row(enrollmentRef, status), bundle: { enrollment_ref: enrollmentRef } });
  const input = { node_id: nodeId };
  return { ask: () => policy.evaluate(input)[0].result };
}

function cedar(stateful) {
  return async ({ enrollmentRef }, status) => {
    const { isAuthorized, preparsePolicySet, statefulIsAuthorized } = require("@cedar-policy/cedar-wasm/nodejs");
    const policies = { staticPolicies: readFileSync(at("gate.cedar"), "utf8") };
    const call = {
      principal: { type: "Node", id: nodeId },
      action: { type: "Action", id: "run" },
      resource: { type: "Tool", id: "tool.echo" },
      context: { enrollment: row(enrollmentRef, status), bundle: { enrollment_ref: enrollmentRef } },
      entities: [],
    };
    let ask;
    if (stateful) {
      preparsePolicySet("gate", policies);
      const prepared = { ...call, preparsedPolicySetId: "gate" };
      ask = () => statefulIsAuthorized(prepared).response.decision === "allow";
    } else {
      const whole = { ...call, policies };
      ask = () => isAuthorized(whole).response.decision === "allow";
    }
    return { ask };
  };
}

const node = `node ${process.versions.node}`;
const cedarWasm = `cedar-wasm ${version("@cedar-policy/cedar-wasm")}`;

export const GATES = { [`${node} plain`]: gate("autonomy-gate"), [`${node} bindgen`]: gate("autonomy-gate/bindgen") };

export const PEERS = {
  [`opa-wasm ${version("@open-policy-agent/opa-wasm")}`]: opa,
  [`${cedarWasm}, preparsed`]: cedar(true),
  [cedarWasm]: cedar(false),
};

export const MODULES = {
  "gate.wasm": at("node_modules/autonomy-gate/dist/gate.wasm"),
  "gate_bindgen.wasm": at("node_modules/autonomy-gate/dist/gate_bindgen.wasm"),
  "opa's policy.wasm": POLICY,
  "cedar_wasm_bg.wasm": at("node_modules/@cedar-policy/cedar-wasm/nodejs/cedar_wasm_bg.wasm"),
};
