// `node load.mjs <contestant>`: how long it takes in a process that has loaded none, in nanoseconds.
import { GATES, PEERS, fixture } from "./contestants.mjs";

const load = { ...GATES, ...PEERS }[process.argv[2]];
const given = fixture();
const started = process.hrtime.bigint();
const { ask } = await load(given, "active");
if (!ask()) throw new Error("it was denied");
console.log(`${process.hrtime.bigint() - started}`);
