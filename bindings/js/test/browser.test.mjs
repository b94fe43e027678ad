// The corpora in Chromium, whole.
import assert from "node:assert/strict";
import { copyFileSync, cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { at, corpus, directory, inChromium, root, serve } from "./support.mjs";

for (const entry of ["web", "bindgen-web"]) {
  test(`the corpora in Chromium, ${entry}`, async (t) => {
    const place = directory();
    cpSync(at("node_modules/autonomy-gate/dist"), join(place, "dist"), { recursive: true });
    copyFileSync(at("conformance.mjs"), join(place, "conformance.mjs"));
    for (const name of ["bundles.json", "decision.json"]) copyFileSync(join(root, "tests/corpus", name), join(place, name));
    writeFileSync(
      join(place, "index.html"),
      `<script type="module">
        import { Gate, REASON_NUMBERS } from "./dist/esm/${entry}.js";
        import { bundles, decisions } from "./conformance.mjs";
        const reasons = Object.fromEntries(Object.entries(REASON_NUMBERS).map(([text, number]) => [number, text]));
        const load = async (name) => (await fetch(name)).json();
        const started = performance.now();
        try {
          const result = {
            bundles: await bundles(Gate, await load("bundles.json")),
            decisions: await decisions(Gate, reasons, await load("decision.json")),
          };
          globalThis.result = { ...result, seconds: (performance.now() - started) / 1000 };
        } catch (error) {
          globalThis.result = { error: String(error.stack) };
        }
      </script>`,
    );
    const server = await serve(place);
    try {
      const { error, seconds, ...counts } = await inChromium(`${server.url}/index.html`);
      assert.equal(error, undefined);
      assert.deepEqual(counts, { bundles: corpus("bundles").bundles.length, decisions: corpus("decision").cases });
      t.diagnostic(`${counts.bundles} bundles and ${counts.decisions} decisions in ${seconds.toFixed(1)} s`);
    } finally {
      server.close();
    }
  });
}
