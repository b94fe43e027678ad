// The corpora in Node, whole, by both ways into the gate.
import { createHash } from "node:crypto";
import { test } from "node:test";
import * as bindgen from "autonomy-gate/bindgen";
import * as plain from "autonomy-gate";
import { CORPORA, run } from "./conformance.mjs";
import { conforms, corpus } from "./support.mjs";

for (const [path, module] of Object.entries({ plain, bindgen })) {
  for (const name of CORPORA) {
    test(`${name}, in Node, ${path}`, async () => {
      const transcript = createHash("sha256");
      const ran = await run(name, module, corpus(name), (piece) => transcript.update(piece));
      conforms({ engine: `node ${process.versions.node} ${path}`, ...ran, transcript: `sha256:${transcript.digest("hex")}` });
    });
  }
}
