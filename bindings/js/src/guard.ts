import { auditId } from "./audit-id.js";
import type { Answer, Lease } from "./documents.js";
import { GateError, line, onlyKnown } from "./errors.js";
import { Frames } from "./frames.js";
import { settle, type BaseGate, type Decision } from "./gate.js";
import { REMEDIES, Reason, type PolicyReason } from "./reasons.js";

/** Who says whether a node is enrolled. */
export interface EnrollmentSource {
  /**
   * What is known of the node now: an answer, its JSON as it came (which is exact), or a lease. One that throws, takes too
   * long or answers nonsense has not answered: the call is denied with `attestation: enrollment_unavailable`.
   */
  lookUp(nodeId: string, signal: AbortSignal): Promise<Answer | Lease | string>;
}

/** Where decisions are written down. */
export interface DecisionSink {
  /**
   * Appends the frames as one batch, and resolves when they are durable. Throws `FactsNotLogged` where the log does not
   * have the facts that they name; whatever else it throws denies the call with `audit: wal_unavailable`.
   */
  append(frames: Frames, signal: AbortSignal): Promise<void>;
}

/** The log does not have the facts that a batch names: the batch is made again, with them. */
export class FactsNotLogged extends Error {
  override readonly name = "FactsNotLogged";
}

/** What the host's own policy says of a call. */
export interface PolicyAnswer {
  policy: PolicyReason;
  /** Which policies answered. */
  policyRef?: string | null;
  /** What the operator should know of their answer. */
  policyDetail?: string | null;
}

/** A call that asks to run a tool. */
export interface ToolCall {
  tool: string;
  /** The tool's parameters, for the policy. */
  params?: unknown;
  /** What the policy said, where it was asked already. Absent means that the guard's policy is asked. */
  policy?: PolicyReason;
  policyRef?: string | null;
  policyDetail?: string | null;
  /** Joins the frames of the call; absent means a new one. */
  auditId?: string;
}

export interface GuardOptions {
  gate: BaseGate;
  source: EnrollmentSource;
  sink: DecisionSink;
  /** The host's own policy. Absent means that it has none: every call goes to the gate. One that throws denies. */
  policy?: (call: { tool: string; params: unknown }) => PolicyAnswer | Promise<PolicyAnswer>;
  /** How long an answer is asked for no more. Absent means 0: every call looks up, and sees a revoke at once. */
  maxAgeMs?: number;
  /** How long a look-up may take; absent means 2,000. */
  lookUpTimeoutMs?: number;
  /** How long an append may take; absent means 10,000. */
  appendTimeoutMs?: number;
}

/** How a tool went. */
export type Outcome = "completed" | "failed" | "abandoned";

/** A call that may not run. What it says to the caller is its `toJSON`. */
export class Denied extends Error {
  override readonly name = "Denied";
  /** 403, or 503 where the decision could not be written down. */
  readonly status: 403 | 503;
  /** What the operator does about it. */
  readonly remedy: string;

  constructor(
    readonly reason: Reason,
    readonly auditId: string,
    readonly policyRef: string | null,
    options?: { cause?: unknown },
  ) {
    super(`the call is denied: ${reason}`, options);
    this.status = reason === Reason.WalUnavailable ? 503 : 403;
    this.remedy = REMEDIES[reason] ?? "";
  }

  toJSON(): { decision: "deny"; reason: Reason; policy_ref: string | null; audit_id: string } {
    return { decision: "deny", reason: this.reason, policy_ref: this.policyRef, audit_id: this.auditId };
  }
}

/** The right to run one tool once. The decision behind it is durable. */
export class Permit {
  readonly #startedMs = performance.now();
  readonly #write: (outcome: Outcome, tookMs: number) => Promise<void>;
  #finished: Promise<void> | undefined;

  /** @internal */
  constructor(
    /** Joins the frames of the call. */
    readonly auditId: string,
    write: (outcome: Outcome, tookMs: number) => Promise<void>,
  ) {
    this.#write = write;
  }

  /**
   * Writes down how the tool went; the first one counts. Nobody needs to wait for it: what counted was the decision. It
   * never rejects.
   */
  finish(outcome: Outcome = "completed"): Promise<void> {
    this.#finished ??= this.#write(outcome, Math.round(performance.now() - this.#startedMs));
    return this.#finished;
  }

  /** `using permit = await guard.ask(…)`: what was not finished was abandoned. */
  [Symbol.dispose](): void {
    void this.finish("abandoned");
  }
}

const GUARD_OPTIONS = new Set(["gate", "source", "sink", "policy", "maxAgeMs", "lookUpTimeoutMs", "appendTimeoutMs"]);

const TOOL_CALL = new Set(["tool", "params", "policy", "policyRef", "policyDetail", "auditId"]);

/** An answer that its source cannot change any more. */
type Settled = ReturnType<typeof settle>;

/** What a source answered, and what it takes to know that a later answer is the same. */
interface Known {
  answer: Settled;
  /** When it was asked for, by a clock that only goes forward. */
  askedMs: number;
}

/**
 * Asks before each tool: looks up the enrollment, decides, and has the decision written down.
 *
 * No tool runs without a permit, and there is a permit only when the frames of its decision are durable.
 */
export class Guard {
  readonly gate: BaseGate;
  readonly #source: EnrollmentSource;
  readonly #sink: DecisionSink;
  readonly #policy: GuardOptions["policy"];
  readonly #maxAgeMs: number;
  readonly #lookUpTimeoutMs: number;
  readonly #appendTimeoutMs: number;
  #known: Known | undefined;
  #told: { same: string; observedMs: number } | undefined;
  #factsLogged: string | null = null;

  constructor(options: GuardOptions) {
    onlyKnown("the guard's options", options, GUARD_OPTIONS);
    this.gate = options.gate;
    this.#source = options.source;
    this.#sink = options.sink;
    this.#policy = options.policy;
    this.#maxAgeMs = options.maxAgeMs ?? 0;
    this.#lookUpTimeoutMs = options.lookUpTimeoutMs ?? 2_000;
    this.#appendTimeoutMs = options.appendTimeoutMs ?? 10_000;
  }

  /**
   * Resolves to a permit when the call may run and its decision is durable. Throws `Denied` when it may not, and
   * `GateError` when it is malformed; nothing is written down then.
   */
  async ask(call: ToolCall): Promise<Permit> {
    onlyKnown("the call", call, TOOL_CALL);
    const policy = await this.#answerOf(call);
    const id = call.auditId ?? auditId();
    const answer = await this.#lookUp();
    let decision = this.#decide(call.tool, policy, id, answer);
    try {
      await this.#append(decision);
    } catch (error) {
      if (!(error instanceof FactsNotLogged)) throw this.#unrecorded(id, policy, error);
      // Another log, or an older state of it: this once, with the facts.
      this.#factsLogged = null;
      decision = this.#decide(call.tool, policy, id, answer);
      await this.#append(decision).catch((again: unknown) => {
        throw this.#unrecorded(id, policy, again);
      });
    }
    if (decision.effect !== "allow") {
      throw new Denied(decision.reason ?? Reason.WalUnavailable, id, policy.policyRef ?? null);
    }
    return new Permit(id, (outcome, tookMs) => this.#finish(call.tool, id, outcome, tookMs));
  }

  /** Asks, runs, and writes down how it went: `completed`, or `failed` where it throws. */
  async run<T>(call: ToolCall, tool: (permit: Permit) => T | Promise<T>): Promise<T> {
    const permit = await this.ask(call);
    try {
      const output = await tool(permit);
      void permit.finish("completed");
      return output;
    } catch (error) {
      void permit.finish("failed");
      throw error;
    }
  }

  async #answerOf(call: ToolCall): Promise<PolicyAnswer> {
    if ("policy" in call) {
      const { policy, policyRef = null, policyDetail = null } = call;
      if (typeof policy !== "string") {
        throw new GateError("malformed", `the call's policy is \`${line(policy)}\`: give its answer, or leave the member out`);
      }
      return { policy, policyRef, policyDetail };
    }
    if (this.#policy === undefined) return { policy: Reason.Allowed };
    try {
      const answer = await this.#policy({ tool: call.tool, params: call.params });
      // One of a policy without an answer.
      if (typeof answer?.policy !== "string") return { policy: Reason.Undefined };
      return answer;
    } catch (error) {
      return { policy: Reason.EvaluationFailed, policyDetail: line(error) };
    }
  }

  async #lookUp(): Promise<Settled> {
    const { nodeId } = this.gate;
    // There is nobody to ask for, and the verdict fails before it looks at the answer.
    if (nodeId === null) return unavailable("the gate has no node id");
    const askedMs = performance.now();
    if (this.#known !== undefined && askedMs - this.#known.askedMs < this.#maxAgeMs) return this.#known.answer;
    let answer: Settled;
    try {
      const given = await within(this.#lookUpTimeoutMs, "the look-up", (signal) => this.#source.lookUp(nodeId, signal));
      // Where the event loop stalled, the answer may come before the timer that says that it is late.
      if (performance.now() - askedMs > this.#lookUpTimeoutMs) throw late("the look-up", this.#lookUpTimeoutMs);
      answer = settle(given);
    } catch (error) {
      answer = unavailable(line(error));
    }
    // A look-up that began later knows better.
    if (this.#known === undefined || this.#known.askedMs <= askedMs) this.#known = { answer, askedMs };
    return this.#known.answer;
  }

  /** Tells and decides without a wait between: no other call's answer comes in between. */
  #decide(tool: string, policy: PolicyAnswer, id: string, answer: Settled): Decision {
    const nowMs = Date.now();
    this.#tell(answer, nowMs);
    return this.gate.decide({ ...policy, tool, auditId: id, nowMs, factsLogged: this.#factsLogged });
  }

  /**
   * A row that was read again is the same but for the time, and would be logged as new facts with each call. The answer
   * that was told before stands for half of its time.
   */
  #tell(answer: Settled, nowMs: number): void {
    const observed = observation(answer);
    if (observed !== undefined && this.#told?.same === observed.same) {
      const ageMs = nowMs - this.#told.observedMs;
      const newer = observed.observedMs >= this.#told.observedMs && observed.observedMs <= nowMs;
      if (newer && ageMs >= 0 && ageMs * 2 < this.gate.maxStalenessMs) return;
    }
    this.#told = undefined;
    try {
      this.gate.setEnrollment(answer);
      this.#told = observed;
    } catch (error) {
      // What does not hold has been told as that, and denies.
      if (error instanceof GateError && error.code !== "trapped") return;
      try {
        this.gate.setEnrollment(unavailable(line(error)));
      } catch {
        // It trapped as well: no instance can be told, and every call is denied.
      }
    }
  }

  async #append(decision: Decision): Promise<void> {
    // There are none where no instance could decide.
    if (decision.facts === null) return;
    await within(this.#appendTimeoutMs, "the append", (signal) => this.#sink.append(decision.frames, signal));
    this.#factsLogged = decision.facts;
  }

  #unrecorded(id: string, policy: PolicyAnswer, cause: unknown): Denied {
    return new Denied(Reason.WalUnavailable, id, policy.policyRef ?? null, { cause });
  }

  async #finish(tool: string, id: string, outcome: Outcome, tookMs: number): Promise<void> {
    const attrs = { tool, outcome, took_ms: tookMs };
    const frame = { kind: "autonomy.action", audit_id: id, node_id: this.gate.nodeId, attrs };
    const frames = new Frames(JSON.stringify([frame]));
    // Nobody waits for it, and there is nobody to tell.
    await within(this.#appendTimeoutMs, "the append", (signal) => this.#sink.append(frames, signal)).catch(() => {});
  }
}

function unavailable(why: string): string {
  return JSON.stringify({ answer: "unavailable", why });
}

/**
 * All of an answer but the digits of its time, and the time. `undefined` for what has none.
 *
 * Only a number as JSON has it is taken out, and the rest stays where it is: what differs from an answer that was read in these
 * digits alone can be read as well.
 */
function observation(answer: Settled): { same: string; observedMs: number } | undefined {
  if (typeof answer !== "string") return undefined;
  // Inside of a string there would be a backslash before the second quote.
  const found = /("observed_at_ms":)([1-9]\d{0,15})(?=[,}])/.exec(answer);
  if (found === null) return undefined;
  const [, name, digits] = found as unknown as [string, string, string];
  const from = found.index + name.length;
  return { same: answer.slice(0, from) + answer.slice(from + digits.length), observedMs: Number(digits) };
}

async function within<T>(timeoutMs: number, what: string, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = late(what, timeoutMs);
      reject(error);
      abort.abort(error);
    }, timeoutMs);
  });
  try {
    return await Promise.race([run(abort.signal), tooLong]);
  } finally {
    clearTimeout(timer);
  }
}

function late(what: string, timeoutMs: number): Error {
  return new Error(`${what} took longer than ${timeoutMs} ms`);
}
