"""A host in memory, for tests and first steps: nothing it takes is durable."""

from __future__ import annotations

from typing import Any

from .audit import clock_ms
from .documents import Answer, Enrollment, Frames


class _Memory:
    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        """What was appended."""
        self.fault: Exception | None = None
        """While set, look-ups and appends raise it."""
        self._rows: dict[str, Enrollment] = {}

    def enroll(
        self, node_id: str, enrollment_ref: str, *, status: str = "active", rollout_state: str = "<none>"
    ) -> None:
        """Enrolls a node, or changes its row."""
        before = self._rows.get(node_id)
        self._rows[node_id] = {
            "node_id": node_id,
            "enrollment_ref": enrollment_ref,
            "status": status,
            "rollout_state": rollout_state,
            "serial": 1 if before is None else before["serial"] + 1,
        }

    def revoke(self, node_id: str) -> None:
        """Revokes a node: its next call is denied."""
        row = self._rows[node_id]
        self.enroll(node_id, row["enrollment_ref"], status="revoked", rollout_state=row["rollout_state"])

    def _look_up(self, node_id: str) -> Answer:
        if self.fault is not None:
            raise self.fault
        row = self._rows.get(node_id)
        if row is None:
            return {"answer": "not_enrolled", "observed_at_ms": clock_ms()}
        return {"answer": "enrolled", "enrollment": row, "observed_at_ms": clock_ms()}

    def _append(self, frames: Frames) -> None:
        if self.fault is not None:
            raise self.fault
        self.frames += frames


class MemoryHost(_Memory):
    """A source and a sink for `Guard`."""

    def look_up(self, node_id: str, timeout_s: float) -> Answer:  # noqa: ARG002 - it takes no time
        """As `EnrollmentSource.look_up`."""
        return self._look_up(node_id)

    def append(self, frames: Frames, timeout_s: float) -> None:  # noqa: ARG002 - it takes no time
        """As `DecisionSink.append`."""
        self._append(frames)


class AsyncMemoryHost(_Memory):
    """A source and a sink for `AsyncGuard`."""

    async def look_up(self, node_id: str) -> Answer:
        """As `AsyncEnrollmentSource.look_up`."""
        return self._look_up(node_id)

    async def append(self, frames: Frames) -> None:
        """As `AsyncDecisionSink.append`."""
        self._append(frames)
