// Runs the corpora on a gate: the same in Node and in a browser. Format: docs/src/spec/corpus.md.

const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

function unpack(segments) {
  const parts = segments.map((segment) => (typeof segment === "number" ? new Uint8Array(segment) : bytes(segment)));
  const tar = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    tar.set(part, at);
    at += part.length;
  }
  return tar;
}

/** What throws, as its text; "" where nothing does. */
function refusal(call) {
  try {
    call();
    return "";
  } catch (error) {
    if (error.name !== "GateError") throw error;
    return error.message;
  }
}

function same(what, found, expected) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: found ${left}, expected ${right}`);
}

/** Every bundle, with the very text of its refusal. Gives how many. */
export async function bundles(Gate, corpus) {
  same("the corpus", [corpus.format, corpus.version], ["autonomy-bundle-corpus", 1]);
  for (const { name, keys, threshold, tar, accepted, refused } of corpus.bundles) {
    const gate = await Gate.load({ trustedKeys: keys.map((key) => corpus.keys[key]), threshold });
    const text = refusal(() => gate.loadBundle(unpack(tar)));
    same(name, text, refused ?? "");
    if (accepted === undefined) {
      same(name, gate.bundle, null);
      continue;
    }
    const { digest, enrollmentRef, policyRef, schemaVersion, files, signers } = gate.bundle;
    same(name, { digest, enrollment_ref: enrollmentRef, policy_ref: policyRef, schema_version: schemaVersion }, {
      digest: accepted.digest,
      enrollment_ref: accepted.enrollment_ref,
      policy_ref: accepted.policy_ref,
      schema_version: accepted.schema_version,
    });
    same(name, files.map((file) => [file.path, file.digest]), accepted.files);
    same(name, signers, accepted.signers);
    for (const file of files) {
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", file.bytes));
      const hex = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
      same(`${name}: ${file.path}`, `sha256:${hex}`, file.digest);
    }
  }
  return corpus.bundles.length;
}

/** Every decision: verdict, effect and frames. Gives how many. */
export async function decisions(Gate, reasons, corpus) {
  same("the corpus", [corpus.format, corpus.version], ["autonomy-decision-corpus", 1]);
  const { settings } = corpus;
  const [modes, policies, tars, nodes, answers, refs, statuses, states] = corpus.dimensions.map(({ values }) => values);
  const expected = corpus.expected.flatMap(([outcome, count]) => new Array(count).fill(corpus.outcomes[outcome]));
  const rows = answers.length * refs.length * statuses.length * states.length;
  const text = (number) => (number === 0 ? null : reasons[number]);
  let cases = 0;
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
        // The answer that needs a lease before it is the last one: it bars no other.
        for (const answer of answers) {
          if (answer.before) refusal(() => gate.setEnrollment({ lease: answer.before }));
          for (const [r, { enrollment_ref }] of refs.entries()) {
            for (const [s, { status }] of statuses.entries()) {
              for (const [t, { rollout_state }] of states.entries()) {
                tell(gate, answer, { enrollment_ref, status, rollout_state }, (r * statuses.length + s) * states.length + t);
                const verdict = gate.verdict(settings.now_ms);
                let factsLogged = null;
                for (const [p, { reason }] of policies.entries()) {
                  const number = (((m * policies.length + p) * tars.length + b) * nodes.length + n) * rows + row;
                  const want = expected[number];
                  const decision = gate.decide({
                    nowMs: settings.now_ms,
                    auditId: settings.audit_id,
                    tool: settings.tool,
                    policy: reasons[reason],
                    factsLogged,
                  });
                  const effect = want.effect === 0 ? "allow" : "deny";
                  const passes = verdict === (text(want.verdict) ?? "pass") && decision.effect === effect;
                  if (!passes || decision.reason !== text(want.effect)) {
                    throw new Error(`case ${number}: found ${verdict}, ${decision.effect}, ${decision.reason}`);
                  }
                  const frames = [...decision.frames];
                  if (factsLogged === null) same(`case ${number}`, frames.shift()?.attrs.id, decision.facts);
                  factsLogged = decision.facts;
                  const found = frames.map(({ attrs: { enforced, layer, outcome, reason: why } }) => ({
                    enforced,
                    layer,
                    outcome,
                    reason: why,
                  }));
                  same(`case ${number}`, found, want.frames);
                  cases += 1;
                }
                row += 1;
              }
            }
          }
        }
      }
    }
  }
  same("cases", cases, corpus.cases);
  return cases;
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
