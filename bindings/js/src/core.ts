export { auditId } from "./audit-id.js";
export type { Answer, BundleFile, Enrollment, Frame, Lease, Mode, SubCheck, Verdict } from "./documents.js";
export { GateError, type GateErrorCode } from "./errors.js";
export { Frames } from "./frames.js";
export {
  BaseGate,
  type Bundle,
  type Call,
  type Decision,
  type Explanation,
  type LoadOptions,
  type ModuleSource,
} from "./gate.js";
export {
  Denied,
  FactsNotLogged,
  Guard,
  Permit,
  type DecisionSink,
  type EnrollmentSource,
  type GuardOptions,
  type Outcome,
  type PolicyAnswer,
  type ToolCall,
} from "./guard.js";
export { MemoryHost } from "./memory-host.js";
export { gateFetch, gateHttp, type HttpResponse, type ToolOf } from "./middleware.js";
export { type NativeHostOptions } from "./native-host.js";
export {
  Reason,
  REASON_NUMBERS,
  REASONS_DIGEST,
  REMEDIES,
  type AttestationReason,
  type AuditReason,
  type PolicyReason,
} from "./reasons.js";
