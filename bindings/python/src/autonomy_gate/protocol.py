"""What stands between a call and its permit, without I/O.

`Protocol` says what is to be done next and is told what came of it; `Guard` and `AsyncGuard` do it, one by waiting, the
other by awaiting. It is a generator of steps, so that the order in which things happen stands in one place.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any, Final, Literal, Union

from .audit import clock_ms, new_audit_id
from .documents import Decision, Frames, Lease, Outcome, compact
from .errors import Denied, FactsNotLoggedError, GateError, TrappedError, line
from .fork import told_of_forks
from .gate import Gate, Settled, settled
from .reasons import PolicyReason, Reason

# Inside of a string there would be a backslash before the second quote.
OBSERVED: Final = re.compile(rb'"observed_at_ms"[ \t\r\n]*:[ \t\r\n]*([1-9][0-9]{0,15})(?=[ \t\r\n]*[,}])')


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What the host's own policy says of a call."""

    policy: PolicyReason
    policy_ref: str | None = None
    """Which policies answered."""
    policy_detail: str | None = None
    """What the operator should know of their answer."""


class Unasked(Enum):
    """Tells a policy that was not asked from one that gave no answer: that one denies."""

    UNASKED = "unasked"


UNASKED: Final = Unasked.UNASKED
Answered = Union[PolicyAnswer, Literal[Unasked.UNASKED], None]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that asks to run a tool."""

    tool: str
    params: Any = None
    """The tool's parameters, for the policy."""
    policy: Answered = UNASKED
    """What the policy said, where it was asked already. `None` is a policy without an answer: it denies."""
    audit_id: str | None = None
    """Joins the frames of the call; `None` makes a new one."""


@dataclass(frozen=True, slots=True)
class AskPolicy:
    """Ask the host's policy. It gives a `PolicyAnswer`."""

    tool: str
    params: Any


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the source. It gives an `Answer`."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Append:
    """Have the frames appended. It gives nothing, once they are durable."""

    frames: Frames


Step = Union[AskPolicy, LookUp, Append]
Steps = Generator[Step, Any, str]
"""Steps to be done, each answered by what came of it or by what it raised. They end with an audit id, or `Denied`."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the source answered last."""

    answer: Settled
    asked: float
    """By a clock that only goes forward."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What it takes to know that a later answer is the same."""

    same: bytes
    """All of an answer but the digits of its time."""
    observed_at_ms: int


class Protocol:
    """From calls to permits, on one gate."""

    def __init__(self, gate: Gate, *, has_policy: bool, max_age_ms: int) -> None:
        self.gate: Final = gate
        self._has_policy = has_policy
        self._max_age = max_age_ms / 1000
        # Between telling an answer and deciding on it, no other call's answer may come.
        self._lock = Lock()
        self._known: Known | None = None
        self._told: Observation | None = None
        self._facts_logged: str | None = None
        told_of_forks(self)

    def ask(self, call: ToolCall) -> Steps:
        """What is to be done for a call."""
        policy = yield from self._policy(call)
        audit_id = new_audit_id() if call.audit_id is None else call.audit_id
        answer = yield from self._look_up()
        decision = self._decide(call.tool, policy, audit_id, answer)
        try:
            try:
                yield from self._append(decision)
            except FactsNotLoggedError:
                # Another log, or an older state of it: this once, with the facts.
                self._facts_logged = None
                decision = self._decide(call.tool, policy, audit_id, answer)
                yield from self._append(decision)
        except Exception as error:
            raise Denied(Reason.WAL_UNAVAILABLE, audit_id, policy.policy_ref) from error
        if not decision.allowed:
            raise Denied(decision.reason or Reason.WAL_UNAVAILABLE, audit_id, policy.policy_ref)
        return audit_id

    def action(self, tool: str, audit_id: str, outcome: Outcome, took_ms: int) -> Frames:
        """The frame that says how a tool went."""
        attrs = {"tool": tool, "outcome": outcome, "took_ms": took_ms}
        frame = {"kind": "autonomy.action", "audit_id": audit_id, "node_id": self.gate.node_id, "attrs": attrs}
        return Frames(compact([frame]))

    def forked(self) -> None:
        """A process that forked while another thread told the gate something cannot know what."""
        self._lock = Lock()
        self._told = None

    def _policy(self, call: ToolCall) -> Generator[Step, Any, PolicyAnswer]:
        answer: Any = call.policy
        if answer is UNASKED:
            if not self._has_policy:
                return PolicyAnswer(Reason.ALLOWED)
            try:
                answer = yield AskPolicy(call.tool, call.params)
            except Exception as error:  # noqa: BLE001 - somebody else's code
                return PolicyAnswer(Reason.EVALUATION_FAILED, policy_detail=line(error))
        if not isinstance(answer, PolicyAnswer) or not isinstance(answer.policy, str):
            return PolicyAnswer(Reason.UNDEFINED)
        return answer

    def _look_up(self) -> Generator[Step, Any, Settled]:
        node_id = self.gate.node_id
        if node_id is None:
            # There is nobody to ask for, and the verdict fails before it looks at the answer.
            return _unavailable("the gate has no node id")
        asked = time.monotonic()
        known = self._known
        if known is not None and asked - known.asked < self._max_age:
            return known.answer
        try:
            answer = settled((yield LookUp(node_id)))
        except Exception as error:  # noqa: BLE001 - somebody else's code
            answer = _unavailable(line(error))
        with self._lock:
            # A look-up that began later knows better.
            if self._known is None or self._known.asked <= asked:
                self._known = Known(answer, asked)
            return self._known.answer

    def _decide(self, tool: str, policy: PolicyAnswer, audit_id: str, answer: Settled) -> Decision:
        with self._lock:
            now_ms = clock_ms()
            self._tell(answer, now_ms)
            return self.gate.decide(
                tool,
                policy=policy.policy,
                policy_ref=policy.policy_ref,
                policy_detail=policy.policy_detail,
                audit_id=audit_id,
                now_ms=now_ms,
                facts_logged=self._facts_logged,
            )

    def _tell(self, answer: Settled, now_ms: int) -> None:
        """Tells the gate, unless it knows.

        A row that was read again is the same but for the time, and would be logged as new facts with each call. The
        answer that was told before stands for half of its time.
        """
        observed = _observation(answer)
        if observed is not None and self._told is not None and observed.same == self._told.same:
            age_ms = now_ms - self._told.observed_at_ms
            newer = self._told.observed_at_ms <= observed.observed_at_ms <= now_ms
            if newer and 0 <= age_ms * 2 < self.gate.max_staleness_ms:
                return
        self._told = None
        try:
            self.gate.set_enrollment(answer)
            self._told = observed
        except TrappedError as error:
            # Where it traps as well, no instance can be told, and every call is denied.
            with contextlib.suppress(TrappedError):
                self.gate.set_enrollment(_unavailable(line(error)))
        except GateError:
            # What does not hold has been told as that, and denies.
            return

    def _append(self, decision: Decision) -> Generator[Step, Any, None]:
        if decision.facts is None:
            # No instance could decide: there are no frames, and it is denied as that.
            return
        given = yield Append(decision.frames)
        if given is not None:
            # A `False`, or a coroutine that nobody awaits, must not count as durable.
            raise TypeError(f"the sink's `append` gave `{given!r}`: it must give nothing, and raise where it fails")
        self._facts_logged = decision.facts


def _observation(answer: Settled) -> Observation | None:
    """An answer without the digits of its time; `None` for what has none.

    Only a number as JSON has it is taken out, and the rest stays where it is: what differs from an answer that was read
    in these digits alone can be read as well.
    """
    if isinstance(answer, Lease):
        return None
    found = OBSERVED.search(answer)
    if found is None:
        return None
    return Observation(answer[: found.start(1)] + answer[found.end(1) :], int(found[1]))


def _unavailable(why: str) -> bytes:
    return compact({"answer": "unavailable", "why": why}).encode()
