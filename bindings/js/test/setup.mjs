// Puts what `npm pack` packed where the tests' own imports find it.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { tarball, at } from "./support.mjs";

const place = at("node_modules/autonomy-gate");
rmSync(place, { recursive: true, force: true });
mkdirSync(place, { recursive: true });
execFileSync("tar", ["-xzf", tarball, "-C", place, "--strip-components=1"]);
