// The gate in Chromium, by both ways into it: the corpora, whole, and a guard whose parts fail.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { inChromium } from "./chromium.mjs";
import { CORPORA } from "./conformance.mjs";
import { enrollmentRef, nodeId } from "./rig.mjs";
import { at, conforms, directory, goodBundle, root, serve, trapping } from "./support.mjs";

/** The file of each way into the gate. */
const ENTRIES = { plain: "web", bindgen: "bindgen-web" };

describe("every corpus, in Chromium", { concurrency: true }, () => {
  for (const way of Object.keys(ENTRIES)) test(way, (t) => runs(t, way));
});

for (const way of Object.keys(ENTRIES)) {
  test(`a guard on a page denies where its source, its sink or its module fails, ${way}`, async (t) => {
    const { bundle, trustedKeys } = goodBundle();
    const place = page(`
      import { Gate, Guard, MemoryHost } from "./dist/esm/${ENTRIES[way]}.js";

      const bundle = await (await fetch("./bundle.tar")).arrayBuffer();
      const told = { bundle, trustedKeys: ${JSON.stringify(trustedKeys)}, nodeId: "${nodeId}", mode: "enforce" };
      const load = (name) => Gate.load({ ...told, module: fetch(name) });
      const refused = await load("./other-abi.wasm").then(() => "loaded", (error) => error.message);

      const host = new MemoryHost();
      host.enroll("${nodeId}", { enrollmentRef: "${enrollmentRef}" });
      let away;
      const unless = (part, call) => async (...given) => {
        if (away === part) throw new Error("it is away");
        return call(...given);
      };
      const source = { lookUp: unless("source", (nodeId) => host.lookUp(nodeId)) };
      const sink = { append: unless("sink", (frames) => host.append(frames)) };
      const guard = new Guard({ gate: await load("./trapping.wasm"), source, sink });
      // Each call that ran says how many have: a tool that runs behind a denial is counted by the next.
      let ran = 0;
      const call = (tool = "tool.echo") =>
        guard.run({ tool }, () => (ran += 1)).catch(({ status, reason }) => \`\${status} \${reason}\`);

      const answers = [await call()];
      for (away of ["source", undefined, "sink", undefined]) answers.push(await call());
      answers.push(await call("gate.trap"), await call());
      const logged = host.frames.filter(({ kind }) => kind === "autonomy.decision").map(({ attrs }) => attrs.reason);
      globalThis.result = { refused, answers, logged };
    `);
    writeFileSync(join(place, "bundle.tar"), bundle);
    copyFileSync(join(root, "target/gate-abi-2.wasm"), join(place, "other-abi.wasm"));
    copyFileSync(trapping[way], join(place, "trapping.wasm"));
    const server = await serve(place);
    t.after(server.close);

    const { result } = await inChromium(`${server.url}/index.html`, undefined, 60_000);
    const [unavailable, unrecorded] = ["403 attestation: enrollment_unavailable", "503 audit: wal_unavailable"];
    assert.match(result.refused, /ABI is `2`.* speaks 1/);
    assert.deepEqual(result.answers, [1, unavailable, 2, unrecorded, 3, unrecorded, 4]);
    const allowed = "policy: allowed";
    assert.deepEqual(result.logged, [allowed, allowed, "attestation: enrollment_unavailable", allowed, allowed, allowed]);
  });
}

/** A page with the package beside it. */
function page(script) {
  const place = directory({ "index.html": `<script type="module">${script}</script>` });
  cpSync(at("node_modules/autonomy-gate/dist"), join(place, "dist"), { recursive: true });
  return place;
}

async function runs(t, way) {
  const place = page(`
    import * as module from "./dist/esm/${ENTRIES[way]}.js";
    import { CORPORA, run } from "./conformance.mjs";

    const answer = {};
    try {
      for (const name of CORPORA) {
        const file = await (await fetch(\`./\${name}.json\`)).json();
        answer[name] = await run(name, module, file, (body) => fetch(\`./\${name}\`, { method: "POST", body }));
      }
    } catch (error) {
      answer.error = error.stack;
    }
    globalThis.result = answer;
  `);
  copyFileSync(at("conformance.mjs"), join(place, "conformance.mjs"));
  for (const name of CORPORA) copyFileSync(join(root, "tests/corpus", `${name}.json`), join(place, `${name}.json`));
  // A page has no hash that takes pieces: they come here, in their order.
  const transcripts = Object.fromEntries(CORPORA.map((name) => [`/${name}`, createHash("sha256")]));
  const server = await serve(place, (corpus, piece) => transcripts[corpus].update(piece));
  t.after(() => server.close());

  const { result, version } = await inChromium(`${server.url}/index.html`);
  if (result.error) throw new Error(result.error);
  for (const name of CORPORA) {
    const transcript = `sha256:${transcripts[`/${name}`].digest("hex")}`;
    conforms({ engine: `chromium ${version} ${way}`, ...result[name], transcript });
  }
}
