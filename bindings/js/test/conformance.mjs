// Runs the corpora on a gate: the same in Node and in a browser. What is run and what a transcript holds:
// docs/src/spec/corpus.md and docs/src/spec/conformance.md.

/** A transcript is handed over in pieces of about so many characters. */
const PIECE = 1 << 20;

const RUNNERS = { signatures, bundles, decision };

/** The corpora, by the names of their files. */
export const CORPORA = Object.keys(RUNNERS);

/**
 * Runs a corpus whole, and gives how many cases it had and how long they took. Whatever differs from what the file expects
 * throws. The transcript goes to `write`, a piece at a time.
 */
export async function run(name, { Gate, REASON_NUMBERS }, file, write) {
  const started = performance.now();
  let cases = 0;
  let piece = "";
  for await (const line of RUNNERS[name](Gate, file, REASON_NUMBERS)) {
    cases += 1;
    piece += `${line}\n`;
    if (piece.length > PIECE) {
      await write(piece);
      piece = "";
    }
  }
  await write(piece);
  return { corpus: name, cases, ms: Math.round(performance.now() - started) };
}

/** Every published signature: whether it is valid. */
async function* signatures(Gate, { format, version, cases }) {
  same("the corpus", [format, version], ["autonomy-signature-corpus", 1]);
  const gate = await Gate.load();
  for (const { name, key, message, signature, valid } of cases) {
    const found = signature.length === 128 && gate.verifySignature(hex(key + signature + message));
    same(name, found, valid);
    yield `${name}\t${found ? "valid" : "invalid"}`;
  }
}

/** Every bundle: what it says, or the very text of its refusal. */
async function* bundles(Gate, corpus) {
  same("the corpus", [corpus.format, corpus.version], ["autonomy-bundle-corpus", 1]);
  for (const { name, keys, threshold, tar, accepted, refused } of corpus.bundles) {
    const gate = await Gate.load({ trustedKeys: keys.map((key) => corpus.keys[key]), threshold });
    const text = refusal(() => gate.loadBundle(unpack(tar)));
    same(name, text, refused ?? null);
    if (text !== null) {
      same(name, gate.bundle, null);
      yield `${name}\trefused\t${text}`;
      continue;
    }
    const { bundle } = gate;
    const { digest, enrollmentRef, policyRef, schemaVersion, files, signers } = bundle;
    same(name, {
      digest,
      enrollment_ref: enrollmentRef,
      files: files.map((file) => [file.path, file.digest]),
      policy_ref: policyRef,
      schema_version: schemaVersion,
      signers,
    }, accepted);
    for (const file of files) {
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", file.bytes));
      const found = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
      same(`${name}: ${file.path}`, `sha256:${found}`, file.digest);
    }
    yield [
      name,
      "accepted",
      digest,
      bundle.name,
      bundle.version,
      bundle.channel,
      bundle.policyVersion,
      schemaVersion,
      policyRef ?? "-",
      enrollmentRef ?? "-",
      signers.join(","),
      ...files.map((file) => `${file.path}=${file.digest}@${file.offset}+${file.bytes.length}`),
    ].join("\t");
  }
}

/** Every decision: verdict, effect and frames. */
async function* decision(Gate, corpus, numbers) {
  same("the corpus", [corpus.format, corpus.version], ["autonomy-decision-corpus", 1]);
  const { settings } = corpus;
  const [modes, policies, tars, nodes, answers, refs, statuses, states] = corpus.dimensions.map(({ values }) => values);
  const expected = corpus.expected.flatMap(([outcome, count]) => new Array(count).fill(corpus.outcomes[outcome]));
  same("cases", expected.length, corpus.cases);
  const rows = answers.length * refs.length * statuses.length * states.length;
  const texts = Object.fromEntries(Object.entries(numbers).map(([text, number]) => [number, text]));
  for (const [m, { mode }] of modes.entries()) {
    for (const [b, { tar }] of tars.entries()) {
      for (const [n, { node_id }] of nodes.entries()) {
        const gate = await Gate.load({
          mode,
          nodeId: node_id,
          trustedKeys: settings.bundle_keys,
          threshold: settings.bundle_threshold,
          leaseKeys: settings.lease_keys,
          leaseThreshold: settings.lease_threshold,
          maxStalenessMs: settings.max_staleness_ms,
          maxSkewMs: settings.max_skew_ms,
        });
        if (tar !== null) refusal(() => gate.loadBundle(unpack(tar)));
        let row = 0;
        for (const answer of answers) {
          if (answer.before) refusal(() => gate.setEnrollment({ lease: answer.before }));
          for (const [r, { enrollment_ref }] of refs.entries()) {
            for (const [s, { status }] of statuses.entries()) {
              for (const [t, { rollout_state }] of states.entries()) {
                tell(gate, answer, { enrollment_ref, status, rollout_state }, (r * statuses.length + s) * states.length + t);
                const found = gate.verdict(settings.now_ms);
                const verdict = found === "pass" ? 0 : numbers[found];
                for (const [p, { reason }] of policies.entries()) {
                  const number = (((m * policies.length + p) * tars.length + b) * nodes.length + n) * rows + row;
                  const decided = gate.decide({
                    nowMs: settings.now_ms,
                    auditId: settings.audit_id,
                    tool: settings.tool,
                    policy: texts[reason],
                  });
                  judge(number, verdict, decided, expected[number], numbers);
                  yield `${verdict}\t${output(decided)}`;
                }
                row += 1;
              }
            }
          }
        }
      }
    }
  }
}

function tell(gate, answer, row, lease) {
  const { kind, observed_at_ms, why } = answer;
  switch (kind) {
    case "unavailable":
      return gate.setEnrollment({ answer: "unavailable", why });
    case "not_enrolled":
      return gate.setEnrollment({ answer: "not_enrolled", observed_at_ms });
    case "row":
      return gate.setEnrollment({
        answer: "enrolled",
        enrollment: { node_id: "robot-7", ...row, serial: 7 },
        observed_at_ms,
      });
    case "lease":
      return refusal(() => gate.setEnrollment({ lease: answer.leases[lease] }));
    default:
      throw new Error(`an answer of the kind ${kind} is not known`);
  }
}

function judge(number, verdict, { effect, reason, facts, frames }, want, numbers) {
  const [first, ...others] = frames;
  const effectNumber = effect === "allow" && reason === null ? 0 : numbers[reason];
  const holds =
    verdict === want.verdict &&
    effectNumber === want.effect &&
    first.kind === "autonomy.facts" &&
    first.attrs.id === facts &&
    others.length === want.frames.length &&
    others.every(({ kind, attrs }, at) => kind === "autonomy.decision" && asExpected(attrs, want.frames[at]));
  if (!holds) throw new Error(`case ${number}: found ${verdict}, ${effect}, ${frames.json}, expected ${JSON.stringify(want)}`);
}

function asExpected(found, want) {
  return (
    found.layer === want.layer &&
    found.outcome === want.outcome &&
    found.reason === want.reason &&
    found.enforced === want.enforced
  );
}

/** What the module said of a decision, from its parts. */
function output({ effect, reason, verdict, facts, frames }) {
  const head = JSON.stringify({ effect, reason, verdict, facts });
  return `${head.slice(0, -1)},"frames":${frames.json}}`;
}

function same(what, found, expected) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: found ${left}, expected ${right}`);
}

/** What throws, as its text; `null` where nothing does. */
function refusal(call) {
  try {
    call();
    return null;
  } catch (error) {
    if (error.name !== "GateError") throw error;
    return error.message;
  }
}

function unpack(segments) {
  const parts = segments.map((segment) => (typeof segment === "number" ? new Uint8Array(segment) : base64(segment)));
  const tar = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    tar.set(part, at);
    at += part.length;
  }
  return tar;
}

function base64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function hex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}
