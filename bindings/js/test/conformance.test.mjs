// The corpora in Node, by both ways into the gate.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as bindgen from "autonomy-gate/bindgen";
import * as plain from "autonomy-gate";
import { bundles, decisions } from "./conformance.mjs";
import { corpus } from "./support.mjs";

const reasons = (module) => Object.fromEntries(Object.entries(module.REASON_NUMBERS).map(([text, number]) => [number, text]));

for (const [name, module] of Object.entries({ plain, bindgen })) {
  test(`every bundle of the corpus, ${name}`, async (t) => {
    const all = corpus("bundles");
    const count = await bundles(module.Gate, all);
    assert.equal(count, all.bundles.length);
    t.diagnostic(`${count} bundles`);
  });

  test(`every decision of the corpus, ${name}`, async (t) => {
    const started = performance.now();
    const all = corpus("decision");
    const count = await decisions(module.Gate, reasons(module), all);
    assert.equal(count, all.cases);
    t.diagnostic(`${count} decisions in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  });
}
