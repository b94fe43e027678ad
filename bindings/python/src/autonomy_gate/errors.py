"""What goes wrong, each in one line: what was wrong, with which value, what to do."""

from __future__ import annotations

import json
from typing import Literal

from .reasons import Reason

LONGEST_LINE = 300


class GateError(Exception):
    """An error of the gate or of how it is used."""


class MalformedError(GateError, ValueError):
    """The input is not what the call takes."""


class RefusedError(GateError):
    """The input was read and does not hold: a bundle, a lease, a token file that others can read."""


class UnsupportedError(GateError):
    """The module, or what was asked of this system, is of another kind."""


class TrappedError(GateError):
    """The module trapped: a defect, or a full memory. Its instance is gone, and the next call makes a new one."""


class FactsNotLoggedError(Exception):
    """Raised by a sink whose log does not have the facts that a batch names: the batch is made again, with them."""


class Denied(Exception):  # noqa: N818 - an answer, and the word for it in every language
    """A call that may not run. What it says to the caller is `to_json`."""

    def __init__(self, reason: Reason, audit_id: str, policy_ref: str | None = None) -> None:
        super().__init__(reason, audit_id, policy_ref)
        self.reason = reason
        self.audit_id = audit_id
        self.policy_ref = policy_ref

    @property
    def status(self) -> Literal[403, 503]:
        """The status of an answer over HTTP: 503 where the decision could not be written down."""
        return 503 if self.reason is Reason.WAL_UNAVAILABLE else 403

    @property
    def remedy(self) -> str:
        """What the operator does about it."""
        return self.reason.remedy

    def to_json(self) -> str:
        """What the caller is told: the canonical reason, and no detail."""
        answer = {
            "decision": "deny",
            "reason": self.reason,
            "policy_ref": self.policy_ref,
            "audit_id": self.audit_id,
        }
        return json.dumps(answer, separators=(",", ":"))

    def __str__(self) -> str:
        return f"the call is denied: {self.reason}"


def line(error: BaseException) -> str:
    """Somebody else's error as one line. A file's name in it may be no text, and it may have none at all."""
    try:
        text = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # noqa: BLE001 - somebody else's code
        text = type(error).__name__
    return text[:LONGEST_LINE].encode(errors="replace").decode()
