"""The documents of the wire, with the wire's names, and the values that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, Union

from .reasons import AttestationReason, PolicyReason, Reason

Mode = Literal["off", "advisory", "enforce"]
"""How far the gate is turned on."""

Verdict = Union[Literal["pass"], AttestationReason]
"""What the gate found: `"pass"`, or the reason of the first sub-check that fails."""

Outcome = Literal["completed", "failed", "abandoned"]
"""How a tool went."""


class Enrollment(TypedDict):
    """A node's row, as its source has it."""

    node_id: str
    enrollment_ref: str
    status: str
    rollout_state: str
    serial: int


class Enrolled(TypedDict):
    """The source answered with a row."""

    answer: Literal["enrolled"]
    enrollment: Enrollment
    observed_at_ms: int


class NotEnrolled(TypedDict):
    """The source answered: no such node."""

    answer: Literal["not_enrolled"]
    observed_at_ms: int


class Unavailable(TypedDict):
    """The source did not answer."""

    answer: Literal["unavailable"]
    why: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A signed answer: the envelope's own bytes."""

    envelope: bytes | str


Answer = Union[Enrolled, NotEnrolled, Unavailable, Lease, str, bytes]
"""What a source of enrollments answered about a node: a document, its JSON as it came, or a lease."""


class Info(TypedDict):
    """What a module says of itself."""

    version: str
    abi: dict[str, int]
    schema_version: str
    reasons: str
    limits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one call: one batch, durable before the tool runs and before the caller is answered.

    What goes to the log is `json`, byte for byte. Iterate to look at the frames.
    """

    json: str

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(json.loads(self.json))


@dataclass(frozen=True, slots=True)
class Call:
    """A call that asks to run a tool."""

    tool: str
    policy: PolicyReason = Reason.ALLOWED
    """What the host's own policy said; `policy: allowed` where it has none."""
    policy_ref: str | None = None
    """Which policies answered."""
    policy_detail: str | None = None
    """What the operator should know of their answer."""
    audit_id: str | None = None
    """Joins the frames of the call; `None` makes a new one."""
    now_ms: int | None = None
    """Milliseconds since the Unix epoch; `None` is now."""
    facts_logged: str | None = None
    """The id of the facts that the log has: `facts` of the last decision whose frames are durable."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of a call."""

    effect: Literal["allow", "deny"]
    """Whether the tool may run, once `frames` are durable."""
    reason: Reason | None
    """Why it may not."""
    verdict: Verdict | None
    """What the gate found; `None` when it was not asked."""
    facts: str | None
    """The id of the facts it was decided on: the next call's `facts_logged`, once `frames` are durable."""
    frames: Frames
    """What must be durable before the tool runs and before the caller is answered."""
    audit_id: str
    """Joins the frames of the call."""

    @property
    def allowed(self) -> bool:
        """Whether the tool may run, once `frames` are durable."""
        return self.effect == "allow"

    @property
    def remedy(self) -> str | None:
        """What the operator does about a denial."""
        return None if self.reason is None else self.reason.remedy


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle."""

    path: str
    digest: str
    offset: int
    """Where it begins in the tar."""
    content: memoryview
    """Its bytes, in the tar."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is active."""

    digest: str
    """Its identity."""
    name: str
    version: str
    channel: Literal["dev", "canary", "stable"]
    policy_version: str
    schema_version: str
    policy_ref: str | None
    """`policy_ref` of the calls that its policies answer."""
    enrollment_ref: str | None
    """The enrollment it declares."""
    files: tuple[BundleFile, ...]
    signers: tuple[str, ...]
    """The ids of the trusted keys that have signed."""


@dataclass(frozen=True, slots=True)
class SubCheck:
    """One sub-check, with what it expected and found."""

    reason: Reason
    outcome: Literal["pass", "fail", "not_judged"]
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All ten sub-checks in their order."""

    verdict: Verdict
    facts_id: str
    facts: dict[str, Any]
    sub_checks: tuple[SubCheck, ...]


# ASCII alone, so that a text that is no Unicode is refused by the gate and not by an encoder.
compact: Final = json.JSONEncoder(separators=(",", ":")).encode
"""A document as JSON without white space."""
