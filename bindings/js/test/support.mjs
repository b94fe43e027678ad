// What the tests share.
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** A file of this folder. */
export const at = (...path) => fileURLToPath(new URL(path.join("/"), import.meta.url));

/** The root of the repository. */
export const root = at("../../..");

export const tarball = process.env.AUTONOMY_GATE_TARBALL ?? join(root, "target/js/autonomy-gate.tgz");

/** The command, for the host that it serves. */
export const autonomy = process.env.AUTONOMY ?? join(root, "target/debug/autonomy");

/** Modules that trap when the tool `gate.trap` is called. */
export const trapping = {
  plain: join(root, "target/gate-trap.wasm"),
  bindgen: join(process.env.AUTONOMY_GATE_TRAPPING ?? join(root, "target/js/trapping"), "gate_bindgen.wasm"),
};

/** The modules that the package ships. */
export const shipped = {
  plain: at("node_modules/autonomy-gate/dist/gate.wasm"),
  bindgen: at("node_modules/autonomy-gate/dist/gate_bindgen.wasm"),
};

/** An engine's name, in every line. */
export const engine = (way) => `node ${process.versions.node} ${way}`;

/** Says what `cargo xtask test` reads. */
export const conforms = (line) => console.log(`conformance ${JSON.stringify({ language: "js", ...line })}`);

export const corpus = (name) => JSON.parse(readFileSync(join(root, "tests/corpus", `${name}.json`), "utf8"));

/** A bundle of the corpus that is accepted, with the key it is signed by. */
export function goodBundle() {
  const { bundles, keys } = corpus("bundles");
  const { tar, keys: names, accepted } = bundles.find((one) => one.accepted?.enrollment_ref);
  return { bundle: unpack(tar), trustedKeys: names.map((name) => keys[name]), accepted };
}

export const unpack = (segments) =>
  Buffer.concat(segments.map((segment) => (typeof segment === "number" ? Buffer.alloc(segment) : Buffer.from(segment, "base64"))));

const run_ = promisify(execFile);

/** Runs a program and gives what it said; fails with all of it. */
export async function run(program, args, options = {}) {
  try {
    const { stdout } = await run_(program, args, { maxBuffer: 1 << 26, ...options });
    return stdout;
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}: ${error.message}\n${error.stdout}\n${error.stderr}`);
  }
}

/** Tries until it does not throw, for as long as a busy machine may need. */
export async function eventually(attempt) {
  for (const deadlineMs = performance.now() + 60_000; ; await sleep(10)) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
    }
  }
}

/** An empty directory with these files. */
export function directory(files = {}) {
  const place = mkdtempSync(join(tmpdir(), "autonomy-gate-"));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(place, name), content);
  return place;
}

/** A project that has installed the tarball, as a newcomer does. */
export async function consumer(files = {}) {
  const place = directory({ "package.json": '{ "private": true }', ...files });
  await run("npm", ["install", "--no-audit", "--no-fund", "--offline", tarball], { cwd: place });
  return place;
}

/** The first block of a language in the README, after a heading. */
export function readme(heading, language) {
  const text = readFileSync(at("../README.md"), "utf8");
  const section = text.slice(text.indexOf(heading));
  const block = new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``).exec(section);
  if (!text.includes(heading) || block === null) throw new Error(`the README has no ${language} block after ${heading}`);
  return block[1];
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

/** Serves files, and gives the address. What a page posts goes to `posted`. */
export async function serve(place, posted) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    if (request.method === "POST") {
      for await (const piece of request) posted(path, piece);
      return response.end();
    }
    try {
      const body = readFileSync(join(place, path));
      response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
      response.end(body);
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
