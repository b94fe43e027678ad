// The corpora in Chromium, whole, by both ways into the gate, beside each other.
import { createHash } from "node:crypto";
import { copyFileSync, cpSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { inChromium } from "./chromium.mjs";
import { CORPORA } from "./conformance.mjs";
import { at, conforms, directory, root, serve } from "./support.mjs";

describe("every corpus, in Chromium", { concurrency: true }, () => {
  test("plain", (t) => runs(t, "plain", "web"));
  test("bindgen", (t) => runs(t, "bindgen", "bindgen-web"));
});

async function runs(t, path, entry) {
  const page = `<script type="module">
    import * as module from "./dist/esm/${entry}.js";
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
  </script>`;
  const place = directory({ "index.html": page });
  cpSync(at("node_modules/autonomy-gate/dist"), join(place, "dist"), { recursive: true });
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
    conforms({ engine: `chromium ${version} ${path}`, ...result[name], transcript });
  }
}
