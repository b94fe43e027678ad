import { auditId } from "./audit-id.js";
import type {
  Answer,
  BundleDocument,
  CallDocument,
  ConfigurationDocument,
  DecisionDocument,
  InfoDocument,
  Lease,
  Mode,
  SubCheck,
  Verdict,
} from "./documents.js";
import type { Engine, Engines } from "./engine.js";
import { GateError, line, onlyKnown, wellFormed } from "./errors.js";
import { Frames } from "./frames.js";
import { refuseOtherReasons } from "./module.js";
import { REASON_TEXTS, REMEDIES, Reason, type AuditReason, type PolicyReason } from "./reasons.js";

/** Where the module comes from, if not from this package. */
export type ModuleSource = WebAssembly.Module | BufferSource | Response | URL;

/** What a gate is told once. */
export interface LoadOptions {
  /** Which node this is. Without one, every call that the gate is asked about is denied. */
  nodeId?: string | null;
  /** How far the gate is turned on; absent means `off`. */
  mode?: Mode;
  /** The tar of a bundle. One that does not verify is refused, and no gate is loaded. */
  bundle?: Uint8Array | ArrayBuffer;
  /** Who may sign bundles: SPKI PEM. None refuses every bundle. */
  trustedKeys?: string | readonly string[];
  /** How many distinct ones of them must have signed; absent means 1. */
  threshold?: number;
  /** Who may sign leases: SPKI PEM. None refuses every lease. */
  leaseKeys?: string | readonly string[];
  /** How many distinct ones of them must have signed; absent means 1. */
  leaseThreshold?: number;
  /** How long an answer counts after it was observed; absent means 60,000. */
  maxStalenessMs?: number;
  /** How far the source's clock may be ahead; absent means 0. */
  maxSkewMs?: number;
  /** The module: compiled, its bytes, or where they come from. Absent means the one that comes with this package. */
  module?: ModuleSource | Promise<ModuleSource>;
}

/** A call that asks to run a tool. */
export interface Call {
  /** The tool's name. */
  tool: string;
  /** What the host's own policy said. Absent means that the host has none: `policy: allowed`. */
  policy?: PolicyReason;
  /** Which policies answered. */
  policyRef?: string | null;
  /** What the operator should know of their answer. */
  policyDetail?: string | null;
  /** Joins the frames of the call; absent means a new one. */
  auditId?: string;
  /** The time, in milliseconds since the Unix epoch; absent means now. */
  nowMs?: number;
  /** The id of the facts that the log has: `facts` of the last decision whose frames are durable. */
  factsLogged?: string | null;
}

/** What comes of a call. */
export interface Decision {
  /** Whether the tool may run, once `frames` are durable. */
  readonly effect: "allow" | "deny";
  /** Why it may not; `null` when it may. */
  readonly reason: Reason | null;
  /** What the operator does about it; `null` when there is nothing to do. */
  readonly remedy: string | null;
  /** What the gate found; `null` when it was not asked. */
  readonly verdict: Verdict | null;
  /** The id of the facts it was decided on: the next call's `factsLogged`, once `frames` are durable. */
  readonly facts: string | null;
  /** What must be durable before the tool runs and before the caller is answered. */
  readonly frames: Frames;
  /** Joins the frames of the call. */
  readonly auditId: string;
}

/** A bundle that is active. */
export interface Bundle {
  /** Its identity. */
  readonly digest: string;
  readonly name: string;
  readonly version: string;
  readonly channel: "dev" | "canary" | "stable";
  readonly policyVersion: string;
  readonly schemaVersion: string;
  /** `policyRef` of the calls that its policies answer. */
  readonly policyRef: string | null;
  /** The enrollment it declares. */
  readonly enrollmentRef: string | null;
  /** Its files in their order, with their bytes and where in the tar these lie. */
  readonly files: readonly {
    readonly path: string;
    readonly digest: string;
    readonly offset: number;
    readonly bytes: Uint8Array;
  }[];
  /** The ids of the trusted keys that have signed. */
  readonly signers: readonly string[];
}

/** Every sub-check, with what it expected and found. */
export interface Explanation {
  readonly verdict: Verdict;
  readonly factsId: string;
  readonly facts: Record<string, unknown>;
  readonly subChecks: readonly SubCheck[];
}

const LOAD_OPTIONS = new Set([
  "nodeId",
  "mode",
  "bundle",
  "trustedKeys",
  "threshold",
  "leaseKeys",
  "leaseThreshold",
  "maxStalenessMs",
  "maxSkewMs",
  "module",
]);

const CALL = new Set(["tool", "policy", "policyRef", "policyDetail", "auditId", "nowMs", "factsLogged"]);

/** What the module takes in one call. */
const BATCH_CALLS = 1024;

/** What the instance was told, to tell it to the next one. */
interface Told {
  bundle?: Uint8Array;
  /** A lease that was taken: it raises the serial below which others are refused. */
  lease?: Uint8Array;
  enrollment?: string | Uint8Array;
}

/**
 * One node's gate: told who it is, which bundle runs and what its enrollment source answered, it decides.
 *
 * It does no I/O and reads no clock but `Date.now()`. `Guard` looks up the enrollment before and logs what comes of it after.
 * Each way of loading the module has its own `Gate`; this is what they share.
 */
export abstract class BaseGate {
  readonly nodeId: string | null;
  readonly mode: Mode;
  readonly maxStalenessMs: number;
  readonly #engines: Engines;
  readonly #configuration: ConfigurationDocument;
  readonly #told: Told = {};
  /** `null` after a trap: the next call makes a new one. */
  #engine: Engine | null;
  #bundle: Bundle | null = null;

  /** @internal */
  constructor(engines: Engines, options: LoadOptions) {
    onlyKnown("the gate's options", options, LOAD_OPTIONS);
    const { nodeId = null, mode = "off", maxStalenessMs, maxSkewMs } = options;
    this.#configuration = {
      mode,
      node_id: nodeId,
      bundle_keys: list(options.trustedKeys),
      bundle_threshold: whole("threshold", options.threshold ?? 1),
      lease_keys: list(options.leaseKeys),
      lease_threshold: whole("leaseThreshold", options.leaseThreshold ?? 1),
      ...(maxStalenessMs === undefined ? {} : { max_staleness_ms: whole("maxStalenessMs", maxStalenessMs) }),
      ...(maxSkewMs === undefined ? {} : { max_skew_ms: whole("maxSkewMs", maxSkewMs) }),
    };
    this.nodeId = nodeId;
    this.mode = mode;
    this.maxStalenessMs = maxStalenessMs ?? 60_000;
    this.#engines = engines;
    this.#engine = engines(this.#configuration);
    refuseOtherReasons(this.#engine.info().reasons);
    if (options.bundle !== undefined) this.loadBundle(options.bundle);
  }

  /** The active bundle, or `null`. */
  get bundle(): Bundle | null {
    return this.#bundle;
  }

  /** How much memory the module holds, in bytes. */
  get memoryBytes(): number {
    return this.#current().memoryBytes;
  }

  /** What the module is. */
  info(): InfoDocument {
    return this.#current().info();
  }

  /** Makes a tar the active bundle. One that is refused throws, and the bundle that was active stays so. */
  loadBundle(tar: Uint8Array | ArrayBuffer): Bundle {
    // A copy: the caller's bytes may change, and the next instance must be told the same.
    const bytes = bytesOf(tar);
    if (bytes === undefined) throw new GateError("malformed", `the bundle is \`${line(tar)}\`: give the bytes of its tar`);
    let document: BundleDocument;
    try {
      document = this.#guarded("the bundle was read", (engine) => engine.loadBundle(bytes));
    } catch (error) {
      // The facts say why there is none.
      if (this.#bundle === null && !isTrapped(error)) this.#told.bundle = bytes;
      throw error;
    }
    this.#told.bundle = bytes;
    this.#bundle = describe(document, bytes);
    return this.#bundle;
  }

  /**
   * Tells what the source answered about this node: an answer, its JSON as the source gave it, or a lease.
   *
   * What is malformed or does not hold throws, and the enrollment is then unavailable or untrusted: it denies.
   */
  setEnrollment(answer: Answer | Lease | string): void {
    const settled = settle(answer);
    if (typeof settled === "string") {
      this.#told.enrollment = settled;
      this.#guarded("the answer was read", (engine) => engine.setEnrollment(settled));
    } else {
      const { lease } = settled;
      this.#told.enrollment = lease;
      this.#guarded("the lease was read", (engine) => engine.setLease(lease));
      this.#told.lease = lease;
    }
  }

  /** What the gate finds at a time. Looks at no mode, and writes nothing down: a call is decided by `decide`. */
  verdict(nowMs: number = Date.now()): Verdict {
    if (typeof nowMs !== "number") throw noTime(nowMs);
    let number: number;
    try {
      number = this.#current().verdict(nowMs);
    } catch {
      this.#engine = null;
      return Reason.EnrollmentUnavailable;
    }
    if (number === 0) return "pass";
    const reason = REASON_TEXTS[number];
    if (reason === undefined) throw noTime(nowMs);
    return reason as Verdict;
  }

  /**
   * Decides a call. Append its frames, wait until they are durable, and only then run the tool or answer the denial.
   *
   * A call that is malformed throws. A call on which the module traps is denied: a new instance decides it, told that the
   * enrollment is unavailable; where that one traps as well or would let the call through, as in `off` and `advisory`, there are
   * no frames and the reason is `audit: wal_unavailable`.
   */
  decide(call: Call): Decision {
    const document = toDocument(call);
    let decision: DecisionDocument;
    try {
      decision = this.#current().decide(document);
    } catch (error) {
      if (error instanceof GateError) throw error;
      return this.#decideTrapped(document, error);
    }
    return toDecision(decision, document.audit_id);
  }

  /** Decides many calls as `decide` would; a malformed one gives an error in its place. */
  decideBatch(calls: readonly Call[]): (Decision | GateError)[] {
    const decisions: (Decision | GateError)[] = [];
    for (let at = 0; at < calls.length; at += BATCH_CALLS) {
      decisions.push(...this.#decideSome(calls.slice(at, at + BATCH_CALLS)));
    }
    return decisions;
  }

  /** Every sub-check at a time, with what it expected and found. Writes nothing down. */
  explain(nowMs: number = Date.now()): Explanation {
    if (typeof nowMs !== "number") throw noTime(nowMs);
    const document = this.#guarded("it explained", (engine) => engine.explain(nowMs));
    return {
      verdict: document.verdict,
      factsId: document.facts_id,
      facts: document.facts,
      subChecks: document.sub_checks,
    };
  }

  /**
   * Whether an Ed25519 signature holds by the strict rules: 32 bytes of a key, 64 of the signature, then the message. No part
   * of a decision: for the published vectors.
   *
   * @internal
   */
  verifySignature(input: Uint8Array): boolean {
    return this.#guarded("it verified", (engine) => engine.verifySignature(input));
  }

  #decideSome(calls: readonly Call[]): (Decision | GateError)[] {
    const documents = calls.map(toDocument);
    let answers: (DecisionDocument | { error: string })[];
    try {
      answers = this.#current().decideBatch(documents);
    } catch (error) {
      if (error instanceof GateError) throw error;
      // One of them is to blame: alone, each is answered for itself.
      this.#engine = null;
      return documents.map((document, at) => {
        try {
          return this.decide({ ...calls[at]!, auditId: document.audit_id, nowMs: document.now_ms });
        } catch (refused) {
          if (refused instanceof GateError) return refused;
          throw refused;
        }
      });
    }
    return answers.map((answer, at) =>
      "error" in answer ? new GateError("malformed", answer.error) : toDecision(answer, documents[at]!.audit_id),
    );
  }

  /** The same call by a new instance, so that the denial is written down. */
  #decideTrapped(document: CallDocument, trap: unknown): Decision {
    try {
      const engine = this.#renew();
      engine.setEnrollment(JSON.stringify({ answer: "unavailable", why: `the gate trapped: ${line(trap)}` }));
      const decision = toDecision(engine.decide(document), document.audit_id);
      this.#tellEnrollment(engine);
      return decision.effect === "deny" ? decision : unrecordable(document.audit_id);
    } catch {
      this.#engine = null;
      return unrecordable(document.audit_id);
    }
  }

  /** The instance, or a new one where the old one was lost. */
  #current(): Engine {
    return this.#engine === null || this.#engine.lost ? this.#renew() : this.#engine;
  }

  #guarded<T>(doing: string, call: (engine: Engine) => T): T {
    try {
      return call(this.#current());
    } catch (error) {
      if (error instanceof GateError) throw error;
      this.#engine = null;
      throw new GateError("trapped", `the gate trapped while ${doing}: ${line(error)}`, { cause: error });
    }
  }

  /** Drops the instance, and tells a new one all that the old one was told. */
  #renew(): Engine {
    const engine = this.#engines(this.#configuration);
    if (this.#told.bundle !== undefined) {
      const { bundle } = this.#told;
      refusedAgain(() => engine.loadBundle(bundle));
    }
    if (this.#told.lease !== undefined) {
      const { lease } = this.#told;
      refusedAgain(() => engine.setLease(lease));
    }
    this.#tellEnrollment(engine);
    this.#engine = engine;
    return engine;
  }

  #tellEnrollment(engine: Engine): void {
    const { enrollment } = this.#told;
    if (enrollment === undefined) return;
    refusedAgain(() => (typeof enrollment === "string" ? engine.setEnrollment(enrollment) : engine.setLease(enrollment)));
  }
}

/** What was refused before is refused again, and leaves the same facts. */
function refusedAgain(tell: () => unknown): void {
  try {
    tell();
  } catch (error) {
    if (!(error instanceof GateError)) throw error;
  }
}

/**
 * An answer that nobody changes any more: its JSON, or a lease's bytes. What is none becomes one that is refused. @internal
 */
export function settle(answer: Answer | Lease | string): string | { lease: Uint8Array } {
  // Half a surrogate pair would be encoded as another character.
  if (typeof answer === "string") return wellFormed(answer) === answer ? answer : "null";
  try {
    const lease = answer !== null && typeof answer === "object" && "lease" in answer ? leaseOf(answer) : undefined;
    return lease === undefined ? (JSON.stringify(answer) ?? "null") : { lease };
  } catch {
    return "null";
  }
}

function leaseOf({ lease }: Lease): Uint8Array | undefined {
  return typeof lease === "string" ? new TextEncoder().encode(lease) : bytesOf(lease);
}

/** A copy of what are bytes; `undefined` for what are none, or were handed to another thread. */
function bytesOf(given: unknown): Uint8Array | undefined {
  try {
    if (ArrayBuffer.isView(given)) return new Uint8Array(given.buffer, given.byteOffset, given.byteLength).slice();
    // By its name: one of another realm has another constructor.
    const isBuffer = Object.prototype.toString.call(given) === "[object ArrayBuffer]";
    return isBuffer ? new Uint8Array(given as ArrayBuffer).slice() : undefined;
  } catch {
    return undefined;
  }
}

function noTime(given: unknown): GateError {
  return new GateError("malformed", `\`${line(given)}\` is not a time: give milliseconds since the Unix epoch`);
}

function isTrapped(error: unknown): boolean {
  return error instanceof GateError && error.code === "trapped";
}

/** In JSON, what is no number is as good as absent: it must not be taken for the default. */
function whole(name: string, given: number): number {
  if (!Number.isSafeInteger(given) || given < 0) {
    throw new GateError("malformed", `\`${name}\` is \`${String(given)}\`: give a whole number from 0 to 2^53 - 1`);
  }
  return given;
}

function list(keys: string | readonly string[] | undefined): string[] {
  return keys === undefined ? [] : typeof keys === "string" ? [keys] : [...keys];
}

function toDocument(call: Call): CallDocument {
  onlyKnown("the call", call, CALL);
  // Absent means that there is no policy. A policy that has no answer must not count as none.
  if ("policy" in call && typeof call.policy !== "string") {
    throw new GateError("malformed", `the call's policy is \`${line(call.policy)}\`: give its answer, or leave the member out`);
  }
  const { policyRef, policyDetail, factsLogged } = call;
  // What is no number at all is as little a time as NaN, which every engine refuses.
  const nowMs = call.nowMs === undefined ? Date.now() : typeof call.nowMs === "number" ? call.nowMs : NaN;
  const document: CallDocument = {
    now_ms: nowMs,
    audit_id: call.auditId ?? auditId(nowMs),
    tool: call.tool,
    policy: call.policy ?? Reason.Allowed,
  };
  if (policyRef != null) document.policy_ref = policyRef;
  if (policyDetail != null) document.policy_detail = policyDetail;
  if (factsLogged != null) document.facts_logged = factsLogged;
  return document;
}

function toDecision(document: DecisionDocument, auditId: string): Decision {
  const { effect, reason, verdict, facts } = document;
  return { effect, reason, remedy: remedyOf(reason), verdict, facts, frames: new Frames(document.frames), auditId };
}

/** A denial that no instance could put into frames. */
function unrecordable(auditId: string): Decision {
  const reason: AuditReason = Reason.WalUnavailable;
  return { effect: "deny", reason, remedy: remedyOf(reason), verdict: null, facts: null, frames: new Frames("[]"), auditId };
}

function remedyOf(reason: Reason | null): string | null {
  return reason === null ? null : REMEDIES[reason];
}

function describe(document: BundleDocument, tar: Uint8Array): Bundle {
  return {
    digest: document.digest,
    name: document.name,
    version: document.version,
    channel: document.channel,
    policyVersion: document.policy_version,
    schemaVersion: document.schema_version,
    policyRef: document.policy_ref,
    enrollmentRef: document.enrollment_ref,
    files: document.files.map(({ path, digest, offset, size }) => ({
      path,
      digest,
      offset,
      bytes: tar.slice(offset, offset + size),
    })),
    signers: document.signers,
  };
}
