// The tarball, as a newcomer installs it: each environment loads it and is denied a call.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { build as esbuild } from "esbuild";
import { build as viteBuild, createServer as viteServer, preview as vitePreview } from "vite";
import webpack from "webpack";
import { inChromium } from "./chromium.mjs";
import { at, consumer, eventually, freePort, readme, run, serve, tarball } from "./support.mjs";

const DENIED = /^403 attestation: bundle_unverified: run `autonomy bundle verify` on the bundle/;

/** A denied call, in as few words as it takes. */
const program = (from) => `
  import { Gate } from "${from}";
  const gate = await Gate.load({ nodeId: "robot-7", mode: "enforce" });
  const { effect, reason } = gate.decide({ tool: "arm.move" });
`;
const ANSWER = "deny attestation: bundle_unverified";

test("Node, import: the first lines of the README", async () => {
  const code = readme("# autonomy-gate", "js");
  assert.ok(code.trim().split("\n").length <= 10);
  assert.match(await run("node", ["main.mjs"], { cwd: await consumer({ "main.mjs": code }) }), DENIED);
});

test("Node, require: the README's lines", async () => {
  const code = readme("### CommonJS", "cjs");
  assert.ok(code.trim().split("\n").length < 20);
  assert.match(await run("node", ["main.cjs"], { cwd: await consumer({ "main.cjs": code }) }), DENIED);
});

test("every block of the README is one that a test runs", () => {
  const blocks = readFileSync(at("../README.md"), "utf8").matchAll(/^ *```(.*)\n[^]*?^ *```$/gm);
  // The first lines and the shell's (`consumer`), those for CommonJS and a page here; a node and its servers in host.test.mjs.
  assert.deepEqual([...blocks].map(([, language]) => language), ["js", "sh", "cjs", "html", "js", "js"]);
});

test("Node, every entry by both module systems", async () => {
  const place = await consumer();
  for (const entry of ["autonomy-gate", "autonomy-gate/bindgen", "autonomy-gate/inline"]) {
    writeFileSync(join(place, "main.mjs"), `${program(entry)} console.log(effect, reason);`);
    assert.equal((await run("node", ["main.mjs"], { cwd: place })).trim(), ANSWER, entry);
    const code = `const { Gate } = require("${entry}");
      Gate.load({ nodeId: "robot-7", mode: "enforce" }).then((gate) => console.log(gate.decide({ tool: "arm.move" }).reason));`;
    writeFileSync(join(place, "main.cjs"), code);
    assert.equal(`deny ${(await run("node", ["main.cjs"], { cwd: place })).trim()}`, ANSWER, entry);
  }
  const raw = 'const { readFileSync } = require("node:fs"); console.log(readFileSync(require.resolve("autonomy-gate/gate.wasm")).length)';
  assert.ok(Number(await run("node", ["-e", raw], { cwd: place })) > 10_000);
});

test("Node, a worker thread with a module that was compiled elsewhere", async () => {
  const place = await consumer({
    "main.mjs": `
      import { readFileSync } from "node:fs";
      import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
      import { Gate } from "autonomy-gate";
      if (isMainThread) {
        const module = await WebAssembly.compile(readFileSync("node_modules/autonomy-gate/dist/gate.wasm"));
        new Worker(new URL(import.meta.url), { workerData: module }).on("message", (reason) => console.log(reason));
      } else {
        const gate = await Gate.load({ module: workerData, nodeId: "robot-7", mode: "enforce" });
        parentPort.postMessage(\`deny \${gate.decide({ tool: "arm.move" }).reason}\`);
      }`,
  });
  assert.equal((await run("node", ["main.mjs"], { cwd: place })).trim(), ANSWER);
});

test("an import reads, fetches and compiles nothing, in any entry", async () => {
  const place = await consumer({
    "watch.cjs": `
      const { syncBuiltinESMExports } = require("node:module");
      const touched = [];
      const watch = (of, object, names) => {
        for (const name of names.filter((name) => typeof object[name] === "function")) {
          const real = object[name];
          object[name] = function (...args) {
            // Node's loader reads the code that is required.
            if (/\\.([cm]?js|json)$/.test(String(args[0]))) return Reflect.apply(real, this, args);
            touched.push(of + "." + name);
            throw new Error("touched");
          };
        }
      };
      console.log("watching");
      for (const name of ["fs", "fs/promises", "net", "http", "https", "child_process", "worker_threads"]) {
        watch(name, require(name), Object.keys(require(name)));
      }
      watch("global", globalThis, ["fetch", "WebSocket"]);
      watch("WebAssembly", WebAssembly, Object.getOwnPropertyNames(WebAssembly));
      syncBuiltinESMExports();
      module.exports = touched;`,
    "reads.mjs": 'import { readFileSync } from "node:fs"; readFileSync("node_modules/autonomy-gate/dist/gate.wasm");',
    "opens.mjs": 'import { open } from "node:fs/promises"; await open("node_modules/autonomy-gate/dist/gate.wasm");',
    "fetches.mjs": 'await fetch("data:,");',
    "compiles.mjs": "new WebAssembly.Module(new Uint8Array());",
    "main.mjs": `
      import { createRequire } from "node:module";
      import touched from "./watch.cjs";
      const [esm, cjs] = JSON.parse(process.argv[2]);
      for (const entry of esm) await import(entry);
      for (const entry of cjs) createRequire(import.meta.url)(entry);
      const byEntries = touched.splice(0);
      for (const name of ["reads", "opens", "fetches", "compiles"]) await import(\`./\${name}.mjs\`).catch(() => {});
      console.log(JSON.stringify([byEntries, touched]));`,
  });
  const entries = (format) => {
    const dist = `./node_modules/autonomy-gate/dist/${format}`;
    const names = readdirSync(join(place, dist)).filter((name) => /^(bindgen-)?(node|web)\.js$|^inline\.js$/.test(name));
    return names.map((name) => `${dist}/${name}`);
  };
  const [esm, cjs] = [entries("esm"), entries("cjs")];
  assert.deepEqual([esm.length, cjs.length], [5, 3]);
  const said = await run("node", ["main.mjs", JSON.stringify([esm, cjs])], { cwd: place });
  const [byEntries, byOthers] = JSON.parse(said.replace("watching", ""));
  assert.deepEqual(byEntries, []);
  assert.deepEqual(byOthers, ["fs.readFileSync", "fs/promises.open", "global.fetch", "WebAssembly.Module"]);
});

test("a page without a bundler: the README's", async () => {
  const page = readme("### A page", "html");
  assert.ok(page.trim().split("\n").length < 20);
  const place = await consumer({ "index.html": page });
  const server = await serve(place);
  try {
    assert.equal(await onPage(`${server.url}/index.html`, () => document.querySelector("#answer").textContent), ANSWER);
  } finally {
    server.close();
  }
});

test("a page's worker, and bindgen on a page", async () => {
  const dist = "./node_modules/autonomy-gate/dist/esm";
  const place = await consumer({
    "worker.js": `${program(`${dist}/web.js`)} postMessage(\`\${effect} \${reason}\`);`,
    "worker.html": `<script type="module">
      new Worker("./worker.js", { type: "module" }).onmessage = ({ data }) => { globalThis.result = data; };
    </script>`,
    "bindgen.html": `<script type="module">${program(`${dist}/bindgen-web.js`)} globalThis.result = \`\${effect} \${reason}\`;</script>`,
  });
  const server = await serve(place);
  try {
    assert.equal(await onPage(`${server.url}/worker.html`), ANSWER);
    assert.equal(await onPage(`${server.url}/bindgen.html`), ANSWER);
  } finally {
    server.close();
  }
});

test("Vite: built, and by its development server", async () => {
  const place = await consumer({
    "index.html": '<script type="module" src="./main.js"></script>',
    "main.js": `${program("autonomy-gate")} globalThis.result = \`\${effect} \${reason}\`;`,
  });
  const config = { root: place, configFile: false, logLevel: "error", build: { target: "esnext" } };
  await viteBuild(config);
  const assets = readdirSync(join(place, "dist/assets"));
  assert.ok(assets.some((name) => name.endsWith(".wasm")), `carried: ${assets}`);
  assert.ok(!assets.some((name) => name.includes("bindgen")), `carried: ${assets}`);
  const built = await vitePreview({ ...config, preview: { port: 0, host: "127.0.0.1" } });
  assert.equal(await onPage(built.resolvedUrls.local[0]), ANSWER);
  await built.close();

  const exclude = readme("## Install", "sh") && /optimizeDeps: (\{[^}]*\})/.exec(readFileSync(at("../README.md"), "utf8"))[1];
  const optimizeDeps = new Function(`return ${exclude}`)();
  const server = await viteServer({ ...config, optimizeDeps, server: { port: 0, host: "127.0.0.1" } });
  await server.listen();
  assert.equal(await onPage(server.resolvedUrls.local[0]), ANSWER);
  await server.close();
});

test("webpack", async () => {
  const place = await consumer({
    "index.html": '<script src="./out/main.js"></script>',
    "main.js": `${program("autonomy-gate")} globalThis.result = \`\${effect} \${reason}\`;`,
  });
  const compiler = webpack({ mode: "production", context: place, entry: "./main.js", output: { path: join(place, "out") } });
  const stats = await promisify(compiler.run).call(compiler);
  assert.ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
  await promisify(compiler.close).call(compiler);
  const server = await serve(place);
  try {
    assert.equal(await onPage(`${server.url}/index.html`), ANSWER);
  } finally {
    server.close();
  }
});

test("esbuild: the module in the code", async () => {
  const place = await consumer({
    "main.js": `${program("autonomy-gate/inline")} globalThis.result = \`\${effect} \${reason}\`;`,
    "index.html": '<script type="module" src="./out.js"></script>',
  });
  await esbuild({ entryPoints: [join(place, "main.js")], bundle: true, format: "esm", outfile: join(place, "out.js"), logLevel: "error" });
  const server = await serve(place);
  try {
    assert.equal(await onPage(`${server.url}/index.html`), ANSWER);
  } finally {
    server.close();
  }
});

test("Deno", async () => {
  const place = await consumer({ "main.mjs": `${program("autonomy-gate")} console.log(effect, reason);` });
  const deno = at("node_modules/@deno/linux-x64-glibc/deno");
  const env = { ...process.env, DENO_DIR: join(place, "deno"), NO_COLOR: "1" };
  const said = await run(deno, ["run", "--no-lock", "--cached-only", "--allow-read=.", "main.mjs"], { cwd: place, env });
  assert.equal(said.trim(), ANSWER);
});

test("workerd, where code may compile nothing", async () => {
  const place = await consumer({
    "main.js": `
      import { Gate, Guard, MemoryHost, gateFetch } from "autonomy-gate";
      import { Gate as Bindgen } from "autonomy-gate/bindgen";
      const host = new MemoryHost();
      export default {
        async fetch(request) {
          const guard = new Guard({
            gate: await (request.url.endsWith("/bindgen") ? Bindgen : Gate).load({ nodeId: "robot-7", mode: "enforce" }),
            source: host,
            sink: host,
          });
          return gateFetch(guard, () => new Response("moved"), { tool: () => "arm.move" })(request);
        },
      };`,
  });
  // As wrangler does: modules of WebAssembly stay modules.
  mkdirSync(join(place, "out"));
  const carried = [];
  await esbuild({
    entryPoints: [join(place, "main.js")],
    bundle: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    outfile: join(place, "out/main.js"),
    logLevel: "error",
    plugins: [
      {
        name: "wasm modules",
        setup(build) {
          build.onResolve({ filter: /\.wasm$/ }, ({ path, resolveDir }) => {
            const name = path.split("/").at(-1);
            copyFileSync(join(resolveDir, path), join(place, "out", name));
            carried.push(name);
            return { path: `./${name}`, external: true };
          });
        },
      },
    ],
  });
  assert.deepEqual(carried.sort(), ["gate.wasm", "gate_bindgen.wasm"]);
  const port = await freePort();
  const modules = carried.map((name) => `(name = "${name}", wasm = embed "out/${name}"),`).join("\n");
  writeFileSync(
    join(place, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
    const config :Workerd.Config = (
      services = [(name = "main", worker = (
        modules = [(name = "main.js", esModule = embed "out/main.js"), ${modules}],
        compatibilityDate = "2026-01-01",
      ))],
      sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
    );`,
  );
  const workerd = spawn(at("node_modules/@cloudflare/workerd-linux-64/bin/workerd"), ["serve", "config.capnp"], {
    cwd: place,
    stdio: ["ignore", "inherit", "inherit"],
  });
  try {
    for (const path of ["", "bindgen"]) {
      // It takes a moment until it listens.
      const response = await eventually(() => fetch(`http://127.0.0.1:${port}/${path}`));
      assert.equal(response.status, 403);
      const { decision, reason } = await response.json();
      assert.equal(`${decision} ${reason}`, ANSWER);
    }
  } finally {
    workerd.kill();
    await once(workerd, "exit");
  }
});

test("TypeScript, strict, by every way of resolving", async () => {
  const code = readFileSync(at("types.ts"), "utf8");
  const place = await consumer({ "esm.mts": code, "cjs.cts": code });
  const tsc = at("node_modules/typescript/bin/tsc");
  const strict = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--lib", "es2022,dom,esnext.disposable"];
  const types = ["--types", "node", "--typeRoots", at("node_modules/@types")];
  for (const resolution of [["--module", "node16"], ["--module", "esnext", "--moduleResolution", "bundler"]]) {
    const files = resolution.includes("node16") ? ["esm.mts", "cjs.cts"] : ["esm.mts"];
    await run(process.execPath, [tsc, ...strict, ...types, ...resolution, ...files], { cwd: place });
  }
});

test("publint and attw find nothing", async () => {
  const { publint } = await import("publint");
  const { messages } = await publint({ pkgDir: at("node_modules/autonomy-gate") });
  assert.deepEqual(messages.filter(({ type }) => type !== "suggestion"), []);
  const attw = at("node_modules/@arethetypeswrong/cli/dist/index.js");
  const ignore = ["--ignore-rules", "no-resolution", "--exclude-entrypoints", "./gate.wasm"];
  await run(process.execPath, [attw, tarball, "--no-emoji", "--profile", "node16", ...ignore]);
});

/** What a page says once it says something. */
async function onPage(url, probe) {
  return (await inChromium(url, probe, 60_000)).result;
}
