import type { AttestationReason, PolicyReason, Reason } from "./reasons.js";

/** How far the gate is turned on. */
export type Mode = "off" | "advisory" | "enforce";

/** What the gate found: `pass`, or the reason of the first sub-check that fails. */
export type Verdict = "pass" | AttestationReason;

/** A node's enrollment, as its source has it. Members are named as on the wire. */
export interface Enrollment {
  node_id: string;
  enrollment_ref: string;
  /** `active`, `revoked`, or a word that denies. */
  status: string;
  /** `<none>`, `pending`, `acknowledged`, `active`, or a word that denies. */
  rollout_state: string;
  /** Grows with every change of the row. Above 2⁵³ − 1 it must be passed on as text. */
  serial: number;
}

/** What a source of enrollments answered about a node: what `GET /v1/enrollments/{node_id}` gives. */
export type Answer =
  | { answer: "enrolled"; enrollment: Enrollment; observed_at_ms: number }
  | { answer: "not_enrolled"; observed_at_ms: number }
  | { answer: "unavailable"; why: string };

/** A signed answer: the envelope's own bytes. */
export interface Lease {
  lease: Uint8Array | string;
}

/** One frame of the log, parsed for looking at. What is appended is the text it came from. */
export interface Frame {
  kind: "autonomy.decision" | "autonomy.facts" | "autonomy.action";
  audit_id: string;
  node_id: string | null;
  attrs: Record<string, unknown>;
}

/** Where a file lies in the bundle's tar. */
export interface BundleFile {
  path: string;
  digest: string;
  offset: number;
  size: number;
}

/** What `gate_load_bundle` says. */
export interface BundleDocument {
  digest: string;
  name: string;
  version: string;
  channel: "dev" | "canary" | "stable";
  policy_version: string;
  schema_version: string;
  policy_ref: string | null;
  enrollment_ref: string | null;
  files: BundleFile[];
  signers: string[];
}

/** What `gate_configure` takes. */
export interface ConfigurationDocument {
  mode: Mode;
  node_id: string | null;
  bundle_keys: string[];
  bundle_threshold: number;
  lease_keys: string[];
  lease_threshold: number;
  max_staleness_ms?: number;
  max_skew_ms?: number;
}

/** What `gate_decide` takes. */
export interface CallDocument {
  now_ms: number;
  audit_id: string;
  tool: string;
  policy: PolicyReason;
  policy_ref?: string;
  policy_detail?: string;
  facts_logged?: string;
}

/** What `gate_decide` says; its frames are the text of a JSON array. */
export interface DecisionDocument {
  effect: "allow" | "deny";
  reason: Reason | null;
  verdict: Verdict | null;
  facts: string;
  frames: string;
}

/** One sub-check, with what it expected and found. */
export interface SubCheck {
  reason: AttestationReason;
  outcome: "pass" | "fail" | "not_judged";
  expected: string;
  found: string;
}

/** What `gate_explain` says. */
export interface ExplanationDocument {
  verdict: Verdict;
  facts_id: string;
  facts: Record<string, unknown>;
  sub_checks: SubCheck[];
}

/** What `gate_info` says. */
export interface InfoDocument {
  version: string;
  abi: { major: number; minor: number };
  schema_version: string;
  reasons: string;
  limits: Record<string, number>;
}
