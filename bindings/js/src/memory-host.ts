import type { Answer, Enrollment, Frame } from "./documents.js";
import type { Frames } from "./frames.js";
import type { DecisionSink, EnrollmentSource } from "./guard.js";

/** A host in memory, for tests and first steps: nothing it takes is durable. */
export class MemoryHost implements EnrollmentSource, DecisionSink {
  /** What was appended. */
  readonly frames: Frame[] = [];
  /** While set, look-ups and appends fail with it. */
  fault: Error | null = null;
  readonly #rows = new Map<string, Enrollment>();

  /** Enrolls a node, or changes its row. */
  enroll(nodeId: string, row: { enrollmentRef: string; status?: string; rolloutState?: string }): void {
    this.#rows.set(nodeId, {
      node_id: nodeId,
      enrollment_ref: row.enrollmentRef,
      status: row.status ?? "active",
      rollout_state: row.rolloutState ?? "<none>",
      serial: (this.#rows.get(nodeId)?.serial ?? 0) + 1,
    });
  }

  /** Revokes a node: its next call is denied. */
  revoke(nodeId: string): void {
    const row = this.#rows.get(nodeId);
    if (row !== undefined) this.#rows.set(nodeId, { ...row, status: "revoked", serial: row.serial + 1 });
  }

  async lookUp(nodeId: string): Promise<Answer> {
    if (this.fault !== null) throw this.fault;
    const enrollment = this.#rows.get(nodeId);
    const observed_at_ms = Date.now();
    return enrollment === undefined
      ? { answer: "not_enrolled", observed_at_ms }
      : { answer: "enrolled", enrollment, observed_at_ms };
  }

  async append(frames: Frames): Promise<void> {
    if (this.fault !== null) throw this.fault;
    this.frames.push(...frames);
  }
}
