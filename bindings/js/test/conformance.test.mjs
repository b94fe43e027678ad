// The corpora in Node, whole, by both ways into the gate.
import { createHash } from "node:crypto";
import { test } from "node:test";
import { CORPORA, run } from "./conformance.mjs";
import { WAYS } from "./rig.mjs";
import { conforms, corpus, engine } from "./support.mjs";

for (const [way, module] of Object.entries(WAYS)) {
  for (const name of CORPORA) {
    test(`${name}, in Node, ${way}`, async () => {
      const transcript = createHash("sha256");
      const ran = await run(name, module, corpus(name), (piece) => transcript.update(piece));
      conforms({ engine: engine(way), ...ran, transcript: `sha256:${transcript.digest("hex")}` });
    });
  }
}
