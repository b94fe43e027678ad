// Builds dist from src, the two modules and wasm-bindgen's glue: `cargo xtask package js` puts those where they are taken from.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildSync, transformSync } from "esbuild";

const here = fileURLToPath(new URL("..", import.meta.url));
const root = join(here, "../..");
const glue = join(root, "target/js");
const at = (...path) => join(here, ...path);

// wasm-bindgen's glue keeps the first module that it is given, for good. This lets one go that turns out to be another.
const FORGET = "\nexport function forget() {\n    wasm = undefined;\n}\n";

// What Node may `require`. The others are for environments that have modules.
const COMMONJS = ["node", "bindgen-node", "inline"];

rmSync(at("dist"), { recursive: true, force: true });
mkdirSync(at("src/generated"), { recursive: true });
const wasm = readFileSync(join(root, "gate-wasm/gate.wasm"));
writeFileSync(at("src/generated/gate-base64.ts"), `export const base64 =\n  "${wasm.toString("base64")}";\n`);
const types = readFileSync(join(glue, "gate_bindgen.d.ts"), "utf8");
writeFileSync(at("src/generated/gate_bindgen.d.ts"), `${types}\nexport function forget(): void;\n`);

execFileSync(process.execPath, [at("node_modules/typescript/bin/tsc"), "--project", here], { stdio: "inherit", cwd: here });
writeFileSync(at("dist/esm/generated/gate_bindgen.js"), readFileSync(join(glue, "gate_bindgen.js"), "utf8") + FORGET);

// CommonJS: the same files in the other form, with the same types.
const files = new Set();
const inputs = buildSync({
  entryPoints: COMMONJS.map((name) => at(`dist/esm/${name}.js`)),
  outdir: at("dist/cjs"),
  bundle: true,
  write: false,
  metafile: true,
  platform: "node",
  format: "esm",
  absWorkingDir: at("dist/esm"),
  logLevel: "error",
});
for (const input of Object.keys(inputs.metafile.inputs)) files.add(input);
const url = 'const importMetaUrl = require("node:url").pathToFileURL(__filename).href;';
for (const file of files) {
  const source = readFileSync(at("dist/esm", file), "utf8");
  const usesUrl = source.includes("import.meta.url");
  const { code } = transformSync(source, {
    format: "cjs",
    platform: "node",
    target: "node20",
    ...(usesUrl ? { define: { "import.meta.url": "importMetaUrl" }, banner: url } : {}),
  });
  mkdirSync(join(at("dist/cjs", file), ".."), { recursive: true });
  writeFileSync(at("dist/cjs", file), code);
}
for (const file of readdirSync(at("dist/esm"))) {
  if (file.endsWith(".d.ts")) cpSync(at("dist/esm", file), at("dist/cjs", file));
}
writeFileSync(at("dist/cjs/package.json"), '{ "type": "commonjs" }\n');

// No type of the package names these.
rmSync(at("dist/esm/generated/gate-base64.d.ts"));
cpSync(join(root, "gate-wasm/gate.wasm"), at("dist/gate.wasm"));
cpSync(join(glue, "gate_bindgen.wasm"), at("dist/gate_bindgen.wasm"));
for (const licence of ["LICENSE-MIT", "LICENSE-APACHE"]) cpSync(join(root, licence), at(licence));
