// Compiled against the installed package: what the types promise, and what they refuse.
import {
  Denied,
  Gate,
  Guard,
  MemoryHost,
  NativeHost,
  Reason,
  gateFetch,
  gateHttp,
  type Decision,
  type DecisionSink,
  type EnrollmentSource,
  type Permit,
  type Verdict,
} from "autonomy-gate";
import { Gate as Bindgen } from "autonomy-gate/bindgen";
import { Gate as Inline } from "autonomy-gate/inline";
import { createServer } from "node:http";

export async function use(): Promise<void> {
  const gate = await Gate.load({ nodeId: "robot-7", mode: "enforce", trustedKeys: ["pem"], bundle: new Uint8Array() });
  // @ts-expect-error a mode that there is not
  await Gate.load({ mode: "on" });
  // @ts-expect-error a misspelt option
  await Gate.load({ nodeID: "robot-7" });
  const decision: Decision = gate.decide({ tool: "arm.move", policy: Reason.Denied });
  // @ts-expect-error no policy gives such a reason
  gate.decide({ tool: "arm.move", policy: Reason.NotEnrolled });
  // @ts-expect-error a policy without an answer
  gate.decide({ tool: "arm.move", policy: undefined });
  const reason: "policy: denied" | Reason | null = decision.reason;
  if (reason === "attestation: not_enrolled") console.log(decision.remedy);
  // @ts-expect-error no reason has this text
  if (reason === "attestation: enrolled") console.log(reason);
  const verdict: Verdict = gate.verdict();
  if (verdict !== "pass") console.log(gate.explain().subChecks[0]?.found);
  gate.setEnrollment({ answer: "not_enrolled", observed_at_ms: 0 });
  gate.setEnrollment({ lease: new Uint8Array() });
  // @ts-expect-error an answer without a time
  gate.setEnrollment({ answer: "not_enrolled" });
  const file: Uint8Array | undefined = gate.bundle?.files[0]?.bytes;
  console.log(file);

  const source: EnrollmentSource = { lookUp: async (nodeId) => ({ answer: "unavailable", why: nodeId }) };
  const sink: DecisionSink = { append: async (frames) => console.log(frames.json) };
  for (const one of [gate, await Bindgen.load(), await Inline.load()]) {
    const guard = new Guard({ gate: one, source, sink, policy: () => ({ policy: Reason.Allowed }) });
    try {
      const permit: Permit = await guard.ask({ tool: "arm.move", params: { joint: 2 } });
      await permit.finish("completed");
    } catch (error) {
      if (error instanceof Denied) console.log(error.status satisfies 403 | 503, error.reason satisfies Reason);
    }
    const gated = gateHttp(guard, { tool: () => "arm.move" });
    createServer((req, res) => void gated(req, res, () => res.end()));
    const handler: (request: Request) => Promise<Response> = gateFetch(guard, () => new Response(), { tool: () => "arm.move" });
    console.log(handler);
  }
  console.log(new MemoryHost(), new NativeHost({ socket: "host.sock", tokenFile: "host.token" }));
}
