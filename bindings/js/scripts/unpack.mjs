// `node scripts/unpack.mjs <folder>`: puts what `npm pack` packed where the imports of a folder find it.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const tarball = process.env.AUTONOMY_GATE_TARBALL ?? join(here, "../../target/js/autonomy-gate.tgz");
const place = join(here, process.argv[2], "node_modules/autonomy-gate");
rmSync(place, { recursive: true, force: true });
mkdirSync(place, { recursive: true });
execFileSync("tar", ["-xzf", tarball, "-C", place, "--strip-components=1"]);
