// What a gate does beside deciding: refusals, traps, memory, the module it takes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as inline from "autonomy-gate/inline";
import * as plain from "autonomy-gate";
import { WAYS, nodeId, row } from "./rig.mjs";
import { goodBundle, root, shipped } from "./support.mjs";

const wasm = readFileSync(join(root, "gate-wasm/gate.wasm"));
const good = goodBundle();
const enrolled = (over = {}) => ({ answer: "enrolled", enrollment: row(over), observed_at_ms: Date.now() });

const load = (Gate, over = {}) =>
  Gate.load({ bundle: good.bundle, trustedKeys: good.trustedKeys, nodeId, mode: "enforce", ...over });

for (const [name, { Gate }] of Object.entries({ ...WAYS, inline })) {
  test(`a call is allowed, and denied once the node is revoked, ${name}`, async () => {
    const gate = await load(Gate);
    assert.equal(gate.bundle.digest, good.accepted.digest);
    gate.setEnrollment(enrolled());
    assert.equal(gate.verdict(), "pass");
    const allowed = gate.decide({ tool: "tool.echo" });
    assert.deepEqual([allowed.effect, allowed.reason, allowed.remedy, allowed.verdict], ["allow", null, null, "pass"]);
    assert.deepEqual([...allowed.frames].map(({ kind }) => kind), ["autonomy.facts", "autonomy.decision"]);
    assert.match(allowed.auditId, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.ok([...allowed.frames].every(({ audit_id }) => audit_id === allowed.auditId));

    gate.setEnrollment(enrolled({ status: "revoked", serial: 2 }));
    const denied = gate.decide({ tool: "tool.echo", factsLogged: allowed.facts });
    assert.equal(denied.reason, "attestation: enrollment_revoked");
    assert.equal(denied.remedy, plain.REMEDIES["attestation: enrollment_revoked"]);
    assert.notEqual(denied.facts, allowed.facts);

    const { verdict, subChecks, factsId } = gate.explain();
    assert.deepEqual([verdict, subChecks.length, factsId], [denied.reason, 10, denied.facts]);
    assert.equal(gate.info().reasons, plain.REASONS_DIGEST);
  });

  test(`what is misspelt or absent by mistake is refused, ${name}`, async () => {
    const gate = await load(Gate);
    gate.setEnrollment(enrolled());
    const refused = (message, call) => assert.throws(call, { name: "GateError", code: "malformed", message });
    refused(/unknown member `polciy`/, () => gate.decide({ tool: "t", polciy: "policy: denied" }));
    refused(/policy is `undefined`/, () => gate.decide({ tool: "t", policy: undefined }));
    refused(/policy is `something that has no text`/, () => gate.decide({ tool: "t", policy: Object.create(null) }));
    refused(/the call is malformed: .*audit: wal_unavailable/, () => gate.decide({ tool: "t", policy: "audit: wal_unavailable" }));
    refused(/the call is malformed/, () => gate.decide({ tool: "no tool" }));
    refused(/the call is malformed/, () => gate.decide({}));
    refused(/the call is malformed/, () => gate.decide({ tool: "t", nowMs: NaN }));
    refused(/the call is malformed/, () => gate.decide({ tool: "t", nowMs: 1.5 }));
    refused(/is not a time/, () => gate.verdict(-1));
    refused(/malformed/, () => gate.setEnrollment("[]"));
    assert.equal(gate.verdict(), "attestation: enrollment_unavailable");
    refused(/malformed/, () => gate.setEnrollment({ answer: "maybe" }));
    await assert.rejects(load(Gate, { nodeID: "x" }), { code: "malformed", message: /unknown member `nodeID`/ });
    await assert.rejects(load(Gate, { mode: "" }), { code: "malformed", message: /configuration is refused/ });
    await assert.rejects(load(Gate, { nodeId: "a b" }), { code: "malformed" });
    await assert.rejects(load(Gate, { trustedKeys: [] }), { code: "refused" });
  });

  test(`an answer that cannot even be read takes the place of the one before, ${name}`, async () => {
    const gate = await load(Gate);
    const large = 68 * 2 ** 20;
    const gone = new Uint8Array(8);
    structuredClone(gone, { transfer: [gone.buffer] });
    const leases = [5, -1, 2 ** 53, 5n, null, undefined, Symbol("x"), {}, gone, new Uint8Array(large), "x".repeat(large)];
    const unread = { toJSON: () => assert.fail("it throws") };
    for (const answer of [...leases.map((lease) => ({ lease })), "x".repeat(large), unread, 5n]) {
      gate.setEnrollment(enrolled());
      assert.equal(gate.verdict(), "pass");
      assert.throws(() => gate.setEnrollment(answer), { name: "GateError" });
      assert.match(gate.verdict(), /^attestation: enrollment_un(available|trusted)$/);
    }
  });

  test(`a number that is none is not taken for an absent one, ${name}`, async () => {
    for (const option of ["threshold", "leaseThreshold", "maxStalenessMs", "maxSkewMs"]) {
      for (const given of [NaN, Infinity, -1, 1.5, "1", 1n, null]) {
        // An absent threshold is 1, and so is one that is `null`.
        if (given === null && option.endsWith("hreshold")) continue;
        const message = `\`${option}\` is \`${given}\`: give a whole number from 0 to 2^53 - 1`;
        await assert.rejects(load(Gate, { [option]: given }), { name: "GateError", code: "malformed", message });
      }
    }
  });

  test(`a call that has no JSON is malformed, and no trap, ${name}`, async () => {
    const gate = await load(Gate);
    gate.setEnrollment(enrolled());
    const throwing = { toJSON: () => assert.fail("it throws") };
    for (const call of [{ tool: throwing }, { tool: "t", auditId: throwing }, { tool: "t", policyDetail: 5n }, { tool: "t", policyRef: Symbol("x") }, { tool: "t", policyRef: NaN }]) {
      assert.throws(() => gate.decide(call), { name: "GateError", code: "malformed" });
      assert.throws(() => gate.decide({ ...call, nowMs: "now" }), { name: "GateError", code: "malformed" });
    }
    assert.equal(gate.decide({ tool: "tool.echo" }).effect, "allow");
  });

  test(`half a surrogate pair is no answer, and in a call another character, ${name}`, async () => {
    const gate = await load(Gate);
    for (const status of ["active\ud800", "\udc00active"]) {
      for (const answer of [enrolled({ status }), JSON.stringify(enrolled({ status: "?" })).replace("?", status)]) {
        gate.setEnrollment(enrolled());
        assert.equal(gate.verdict(), "pass");
        assert.throws(() => gate.setEnrollment(answer), { name: "GateError", code: "malformed" });
        assert.equal(gate.verdict(), "attestation: enrollment_unavailable");
      }
    }
    const { frames } = gate.decide({ tool: "tool.echo", policy: "policy: denied", policyDetail: "a\ud800b\u{1f600}" });
    assert.equal([...frames].at(-1).attrs.detail, "a\ufffdb\u{1f600}");
    const message = /`\ufffd` \(U\+FFFD\)|holds `\ufffd`|holds `\\u\{fffd\}`/;
    assert.throws(() => gate.decide({ tool: "tool\ud800" }), { name: "GateError", code: "malformed", message });
  });

  test(`what is no time and no tar is said to be none, ${name}`, async () => {
    const gate = await load(Gate);
    gate.setEnrollment(enrolled());
    for (const time of [5n, "5", null, {}, Symbol("x"), Object.create(null)]) {
      for (const ask of [(at) => gate.verdict(at), (at) => gate.explain(at), (nowMs) => gate.decide({ tool: "tool.echo", nowMs })]) {
        assert.throws(() => ask(time), { name: "GateError", code: "malformed" });
      }
      const [decided] = gate.decideBatch([{ tool: "tool.echo", nowMs: time }]);
      assert.equal(decided.code, "malformed");
    }
    assert.throws(() => gate.verdict(5n), { message: "`5` is not a time: give milliseconds since the Unix epoch" });
    for (const tar of [null, undefined, 5, "tar", {}, [1]]) {
      const message = /^the bundle is `.*`: give the bytes of its tar$/;
      assert.throws(() => gate.loadBundle(tar), { name: "GateError", code: "malformed", message });
      if (tar !== undefined) await assert.rejects(load(Gate, { bundle: tar }), { name: "GateError", code: "malformed", message });
    }
    assert.equal(gate.verdict(), "pass");
    const { buffer } = new Uint8Array(good.bundle);
    for (const tar of [buffer, new DataView(buffer), new Uint16Array(buffer)]) assert.equal(gate.loadBundle(tar).digest, good.accepted.digest);
  });

  test(`a refused bundle leaves the one that is active, ${name}`, async () => {
    const gate = await load(Gate);
    gate.setEnrollment(enrolled());
    assert.throws(() => gate.loadBundle(new Uint8Array(512)), { code: "refused" });
    assert.equal(gate.bundle.digest, good.accepted.digest);
    assert.equal(gate.verdict(), "pass");
  });

  test(`a batch decides what as many calls would, ${name}`, async () => {
    const gate = await load(Gate);
    gate.setEnrollment(enrolled());
    const calls = Array.from({ length: 2_500 }, (_, at) => ({
      tool: at % 7 === 0 ? "no tool" : `tool.${at}`,
      policy: at % 3 === 0 ? "policy: denied" : "policy: allowed",
      auditId: `a-${at}`,
      nowMs: 1_800_000_000_000,
    }));
    const singly = calls.map((call) => {
      try {
        return gate.decide(call);
      } catch (error) {
        return error;
      }
    });
    const together = gate.decideBatch(calls);
    assert.equal(together.length, calls.length);
    for (const [index, one] of singly.entries()) {
      if (one instanceof Error) assert.equal(together[index].message, one.message);
      else assert.deepEqual(together[index], one);
    }
    assert.deepEqual(gate.decideBatch([]), []);
  });
}

for (const [name, { Gate }] of Object.entries(WAYS)) {
  test(`a million decisions leave the memory as it was, ${name}`, async () => {
    // On a busy machine they take more than the minute for which an answer stands.
    const gate = await load(Gate, { maxStalenessMs: 3_600_000 });
    gate.setEnrollment(enrolled());
    // More forms of calls than the module remembers, none as long as another: what it remembers turns over, again and again.
    const [FORMS, IN_A_ROW] = [40, 10];
    let { facts } = gate.decide({ tool: "tool.0" });
    const decide = (calls) => {
      for (let at = 0; at < calls; at += 1) {
        const policyRef = "p".repeat(1 + (Math.floor(at / IN_A_ROW) % FORMS));
        const decision = gate.decide({ tool: "tool.0", policyRef, auditId: "a", factsLogged: facts });
        if (decision.effect !== "allow") assert.fail(decision.reason);
        ({ facts } = decision);
      }
    };
    decide(FORMS * IN_A_ROW);
    const before = gate.memoryBytes;
    decide(1_000_000);
    assert.equal(gate.memoryBytes, before);
  });

  test(`integers that a number does not hold go through as they came, ${name}`, async () => {
    const gate = await load(Gate);
    const json = JSON.stringify(enrolled()).replace('"serial":1', '"serial":18446744073709551615');
    gate.setEnrollment(json);
    assert.match(gate.decide({ tool: "t" }).frames.json, /"serial":18446744073709551615/);
  });
}

test("what is no gate.wasm is refused", async () => {
  const empty = Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
  const importing = Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 2, 7, 1, 1, 0x61, 1, 0x62, 0, 0]);
  const otherAbi = readFileSync(join(root, "target/gate-abi-2.wasm"));
  for (const { Gate } of Object.values(WAYS)) {
    const refused = (module, message) => assert.rejects(Gate.load({ module }), { name: "GateError", code: "unsupported", message });
    await refused(empty, /ABI is `none`/);
    await refused(Buffer.from("<!doctype html>"), /optimizeDeps/);
    await refused(importing, /imports `a.b`/);
    await refused(otherAbi, /ABI is `2`.* speaks 1/);
  }
  const message = "the module has the plain ABI: load it by `autonomy-gate`, or leave `module` out";
  await assert.rejects(WAYS.bindgen.Gate.load({ module: wasm }), { name: "GateError", code: "unsupported", message });
  const importsGlue = /imports `\.\/gate_bindgen_bg\.js\.\w+`: gate.wasm imports nothing/;
  await assert.rejects(WAYS.plain.Gate.load({ module: readFileSync(shipped.bindgen) }), { name: "GateError", message: importsGlue });
});

test("an audit id begins with the time of its call", async () => {
  const gate = await load(plain.Gate);
  // One time again, as the calls of a millisecond have it.
  for (const nowMs of [1_800_000_000_000, 1_800_000_000_000, 1_800_000_000_001, 0, 2 ** 48 - 1]) {
    const { auditId } = gate.decide({ tool: "tool.echo", nowMs });
    assert.match(auditId, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    assert.equal(parseInt(auditId.replace("-", "").slice(0, 12), 16), nowMs);
  }
});

test("an audit id is one at any time", () => {
  const first = "00000000-0000-7";
  const last = "ffffffff-ffff-7";
  for (const [nowMs, begins] of [[-1, first], [NaN, first], [-Infinity, first], [0.9, first], [2 ** 48, last], [Infinity, last]]) {
    assert.match(plain.auditId(nowMs), new RegExp(`^${begins}[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`), `${nowMs}`);
  }
});

test("a module may come as bytes, compiled, or as a response", async () => {
  const sources = [
    wasm,
    wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.length),
    new WebAssembly.Module(wasm),
    new Response(wasm),
    Promise.resolve(wasm),
    new URL(`data:application/wasm;base64,${wasm.toString("base64")}`),
  ];
  for (const module of sources) {
    const gate = await plain.Gate.load({ module, nodeId, mode: "enforce" });
    assert.equal(gate.verdict(), "attestation: bundle_unverified");
  }
  await assert.rejects(plain.Gate.load({ module: new Response("", { status: 404 }) }), { message: /status `404`/ });
});

/** An engine that traps at its first decision, and is whole from then on. */
function trappingOnce(engines) {
  let trapped = false;
  return (configuration) => {
    const engine = engines(configuration);
    const trap = (method) =>
      function (...args) {
        if (trapped) return engine[method](...args);
        trapped = true;
        throw new WebAssembly.RuntimeError("unreachable");
      };
    const methods = ["info", "loadBundle", "setEnrollment", "setLease", "verdict", "explain"];
    return {
      lost: false,
      memoryBytes: 0,
      ...Object.fromEntries(methods.map((method) => [method, (...args) => engine[method](...args)])),
      decide: trap("decide"),
      decideBatch: trap("decideBatch"),
    };
  };
}

test("a module with other reasons than this package's is refused", async () => {
  const { plainEngines } = await import(new URL("node_modules/autonomy-gate/dist/esm/plain.js", import.meta.url));
  const engines = plainEngines(new WebAssembly.Module(wasm));
  const other = (configuration) => Object.assign(engines(configuration), { info: () => ({ reasons: "sha256:00" }) });
  assert.throws(() => new plain.Gate(other, {}), { code: "unsupported", message: /reasons are `sha256:00`, this package's `sha256:1/ });
});

test("a call on which the module traps is denied in every mode, and written down where the mode denies", async () => {
  const { plainEngines } = await import(new URL("node_modules/autonomy-gate/dist/esm/plain.js", import.meta.url));
  const gate = (mode = "enforce") => {
    const made = new plain.Gate(trappingOnce(plainEngines(new WebAssembly.Module(wasm))), {
      bundle: good.bundle,
      trustedKeys: good.trustedKeys,
      nodeId,
      mode,
    });
    made.setEnrollment(enrolled());
    return made;
  };
  const one = gate();
  const denied = one.decide({ tool: "tool.echo" });
  assert.deepEqual([denied.effect, denied.reason], ["deny", "attestation: enrollment_unavailable"]);
  const frames = [...denied.frames];
  assert.match(frames[0].attrs.facts.enrollment.why, /the gate trapped: unreachable/);
  assert.equal(frames.length, 3);
  const next = one.decide({ tool: "tool.echo" });
  assert.equal(next.effect, "allow");

  for (const mode of ["off", "advisory"]) {
    const lenient = gate(mode);
    const trapped = lenient.decide({ tool: "tool.echo" });
    assert.deepEqual([trapped.effect, trapped.reason, trapped.frames.json], ["deny", "audit: wal_unavailable", "[]"]);
    assert.equal(lenient.decide({ tool: "tool.echo" }).effect, "allow");
  }

  // In a batch the calls are decided one by one: here the first is that which finds the trap gone.
  const many = gate().decideBatch([{ tool: "a" }, { tool: "b" }]);
  assert.deepEqual(many.map(({ effect }) => effect), ["allow", "allow"]);
});
