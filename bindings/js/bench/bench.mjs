// Measures the package beside its peers, in turns. What a line means: docs/src/spec/conformance.md.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { Guard, NativeHost } from "autonomy-gate";
import { GATES, MODULES, PEERS, fixture, nodeId } from "./contestants.mjs";

const ROUNDS = 400;
/** How long a sample takes: long against the clock, short against whatever else the machine does. */
const SAMPLE_NS = 250_000;
const WARM_NS = 1_000_000_000;
const LOADS = 11;
const DURABLE_CALLS = 500;
const TOOLS = Array.from({ length: 64 }, (_, at) => `tool.${at}`);
/** So many more than the module remembers that, in turn, each is asked as if for the first time. */
const POLICY_REFS = Array.from({ length: 1024 }, (_, at) => `fleet@${at}`);

const given = fixture();
const rows = [];

/** Takes a sample of each in turns; a sample is the mean of as many calls as take `SAMPLE_NS`. */
function measure(what, contestants) {
  const all = Object.entries(contestants).map(([engine, call]) => {
    // Engines compile again what runs often: what is measured is what comes after.
    for (let call_ns = 0; call_ns < WARM_NS; ) call_ns += time(call, 1);
    let calls = 1;
    while (time(call, calls) < SAMPLE_NS) calls *= 2;
    return { engine, call, calls, samples: [] };
  });
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { call, calls, samples } of all) samples.push(time(call, calls) / calls);
  }
  for (const { engine, calls, samples } of all) report(what, engine, samples, calls * ROUNDS);
}

function time(call, calls) {
  const started = process.hrtime.bigint();
  for (let at = 0; at < calls; at += 1) call();
  return Number(process.hrtime.bigint() - started);
}

function report(what, engine, samples, calls) {
  samples.sort((a, b) => a - b);
  const at = (share) => Math.round(samples[Math.ceil(samples.length * share) - 1]);
  const row = { language: "js", engine, what, p50_ns: at(0.5), p95_ns: at(0.95), p99_ns: at(0.99), calls };
  console.log(`bench ${JSON.stringify(row)}`);
  rows.push(row);
}

async function verdicts() {
  const contestants = {};
  for (const [engine, load] of Object.entries({ ...GATES, ...PEERS })) {
    // The same question: each denies the node once it is revoked.
    if ((await load(given, "revoked")).ask()) throw new Error(`${engine} allows a revoked node`);
    const { ask } = await load(given, "active");
    if (!ask()) throw new Error(`${engine} denies an active node`);
    contestants[engine] = ask;
  }
  measure("verdict", contestants);
}

async function decisions() {
  const contestants = {};
  const firsts = {};
  for (const [engine, load] of Object.entries(GATES)) {
    const { gate } = await load(given, "active");
    const { facts: factsLogged } = gate.decide({ tool: "tool.echo" });
    let calls = 0;
    contestants[engine] = () => gate.decide({ tool: TOOLS[calls++ % TOOLS.length], policy: "policy: allowed", factsLogged });
    if (contestants[engine]().effect !== "allow") throw new Error(`${engine} denies an active node`);
    firsts[engine] = () => {
      const policyRef = POLICY_REFS[calls++ % POLICY_REFS.length];
      return gate.decide({ tool: "tool.0", policy: "policy: allowed", policyRef, factsLogged });
    };
    if (firsts[engine]().effect !== "allow") throw new Error(`${engine} denies an active node`);
  }
  measure("decide", contestants);
  measure("decide_first", firsts);
}

/** Each in a process of its own. */
function loads() {
  const samples = Object.fromEntries(Object.keys({ ...GATES, ...PEERS }).map((engine) => [engine, []]));
  for (let round = 0; round < LOADS; round += 1) {
    for (const [engine, taken] of Object.entries(samples)) {
      const script = fileURLToPath(new URL("load.mjs", import.meta.url));
      taken.push(Number(execFileSync(process.execPath, [script, engine], { encoding: "utf8" })));
    }
  }
  for (const [engine, taken] of Object.entries(samples)) report("load", engine, taken, LOADS);
}

/** Look-up, decision, and an append that is on the disk: what a guarded call costs on a node. */
async function durable() {
  const autonomy = process.env.AUTONOMY;
  const home = mkdtempSync(join(tmpdir(), "autonomy-gate-"));
  const cli = (...args) => execFileSync(autonomy, ["--home", home, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  cli("host", "token");
  cli("node", "enroll", "--node-id", nodeId, "--enrollment-ref", given.enrollmentRef);
  const socket = join(home, "host.sock");
  const host = spawn(autonomy, ["--home", home, "host", "serve", "--socket", socket], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    for await (const line of createInterface(host.stdout)) if (line.startsWith("listening")) break;
    for (const [engine, load] of Object.entries(GATES)) {
      const { gate } = await load(given, "active");
      const native = new NativeHost({ socket, tokenFile: join(home, "host.token") });
      const guard = new Guard({ gate, source: native, sink: native });
      const samples = [];
      for (let call = 0; call < DURABLE_CALLS; call += 1) {
        const started = process.hrtime.bigint();
        await guard.ask({ tool: "tool.echo" });
        samples.push(Number(process.hrtime.bigint() - started));
      }
      report("decide_durable", engine, samples, DURABLE_CALLS);
    }
  } finally {
    host.kill();
    await once(host, "exit");
    rmSync(home, { recursive: true });
  }
}

function table() {
  const [plain] = Object.keys(GATES);
  console.log(`\n${"".padEnd(16)} ${"".padEnd(30)} ${"p50".padStart(12)} ${"p95".padStart(12)} ${"p99".padStart(12)}  against plain`);
  for (const { what, engine, p50_ns, p95_ns, p99_ns } of rows) {
    const base = rows.find((row) => row.what === what && row.engine === plain);
    const times = [p50_ns, p95_ns, p99_ns].map((ns) => `${ns.toLocaleString("en")} ns`.padStart(15)).join("");
    console.log(`${what.padEnd(16)} ${engine.padEnd(30)}${times}  ${(p50_ns / base.p50_ns).toFixed(1)} x`);
  }
  console.log();
  for (const [name, path] of Object.entries(MODULES)) {
    const bytes = readFileSync(path);
    const zipped = gzipSync(bytes, { level: 9 }).length;
    console.log(`${name.padEnd(20)} ${bytes.length.toLocaleString("en").padStart(10)} bytes, ${zipped.toLocaleString("en").padStart(9)} compressed`);
  }
}

await verdicts();
await decisions();
loads();
await durable();
table();
