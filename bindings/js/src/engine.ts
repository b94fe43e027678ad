import type {
  BundleDocument,
  CallDocument,
  ConfigurationDocument,
  DecisionDocument,
  ExplanationDocument,
  InfoDocument,
} from "./documents.js";

/**
 * One instance of the decision. It throws a `GateError` for what it refuses; anything else that it throws is a trap,
 * and the instance is then gone.
 *
 * @internal
 */
export interface Engine {
  /** Whether it was lost through no fault of its own: a new one is told everything, and asked in its place. */
  readonly lost: boolean;
  readonly memoryBytes: number;
  info(): InfoDocument;
  loadBundle(tar: Uint8Array): BundleDocument;
  setEnrollment(json: string): void;
  setLease(envelope: Uint8Array): void;
  /** 0, the number of a reason, or below 0 for what is no time. */
  verdict(nowMs: number): number;
  decide(call: CallDocument): DecisionDocument;
  decideBatch(calls: CallDocument[]): (DecisionDocument | { error: string })[];
  explain(nowMs: number): ExplanationDocument;
  /** Whether a signature holds: 32 bytes of a key, 64 of the signature, then the message. */
  verifySignature(input: Uint8Array): boolean;
}

/** @internal */
export type Engines = (configuration: ConfigurationDocument) => Engine;
