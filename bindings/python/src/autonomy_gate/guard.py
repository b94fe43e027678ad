"""Asks before each tool: looks up the enrollment, decides, and has the decision written down."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final, Union
from typing import Protocol as Interface

from .documents import Answer, Frames, Outcome
from .gate import Gate
from .protocol import UNASKED, Answered, Append, AskPolicy, LookUp, PolicyAnswer, Protocol, Step, ToolCall

LOOK_UP_TIMEOUT_MS: Final = 2_000
APPEND_TIMEOUT_MS: Final = 10_000


class EnrollmentSource(Interface):
    """Who says whether a node is enrolled."""

    def look_up(self, node_id: str, timeout_s: float) -> Answer:
        """What is known of the node now: a document, its JSON as it came, or a lease.

        It must be back within `timeout_s`: a guard that waits for threads has no way to stop it. One that raises, is late
        or answers nonsense has not answered: the call is denied with `attestation: enrollment_unavailable`.
        """


class DecisionSink(Interface):
    """Where decisions are written down."""

    def append(self, frames: Frames, timeout_s: float) -> None:
        """Appends the frames as one batch, and returns when they are durable.

        It must be back within `timeout_s`. It raises `FactsNotLoggedError` where the log does not have the facts that
        the frames name; whatever else it raises denies the call with `audit: wal_unavailable`.
        """


class AsyncEnrollmentSource(Interface):
    """Who says whether a node is enrolled, for `AsyncGuard`, which cancels a look-up that takes too long."""

    async def look_up(self, node_id: str) -> Answer:
        """As `EnrollmentSource.look_up`."""


class AsyncDecisionSink(Interface):
    """Where decisions are written down, for `AsyncGuard`, which cancels an append that takes too long."""

    async def append(self, frames: Frames) -> None:
        """As `DecisionSink.append`."""


Policy = Callable[[str, Any], Union[PolicyAnswer, None]]
"""The host's own policy: takes the tool and its parameters. One that raises, or has no answer, denies."""

AsyncPolicy = Callable[[str, Any], Union[PolicyAnswer, Awaitable[Union[PolicyAnswer, None]], None]]
"""The same, to be awaited or not."""


class BasePermit:
    """What permits share: the first word on how the tool went counts."""

    def __init__(self, protocol: Protocol, tool: str, audit_id: str) -> None:
        self.audit_id: Final = audit_id
        """Joins the frames of the call."""
        self._protocol = protocol
        self._tool = tool
        self._started = time.monotonic()
        self._finished = False

    def _frames(self, outcome: Outcome) -> Frames | None:
        if self._finished:
            return None
        self._finished = True
        took_ms = round((time.monotonic() - self._started) * 1000)
        return self._protocol.action(self._tool, self.audit_id, outcome, took_ms)


class Permit(BasePermit):
    """The right to run one tool once. The decision behind it is durable.

    As a context manager it says how the tool went: `completed`; `failed` where an exception comes out; `abandoned`
    where it was given up (`KeyboardInterrupt`, `GeneratorExit` and the like).
    """

    def __init__(self, protocol: Protocol, tool: str, audit_id: str, write: Callable[[Frames], object]) -> None:
        super().__init__(protocol, tool, audit_id)
        self._write = write

    def finish(self, outcome: Outcome = "completed") -> None:
        """Writes down how the tool went; the first one counts. It never raises: what counted was the decision."""
        if (frames := self._frames(outcome)) is not None:
            with contextlib.suppress(Exception):
                self._write(frames)

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(outcome_of(error))


class Guard:
    """Asks before each tool. No tool runs without a permit, and no permit exists before its frames are durable.

    It may be used from any number of threads: calls look up and append side by side, and decide one after the other. It
    owns what its gate is told about the enrollment: use one guard for a gate.

    Args:
        gate: The gate.
        source: Who says whether the node is enrolled.
        sink: Where decisions are written down.
        policy: The host's own policy. Without one, every call goes to the gate.
        max_age_ms: How long an answer is asked for no more. At 0 every call looks up, and sees a revoke at once.
        look_up_timeout_ms: How long a look-up may take.
        append_timeout_ms: How long an append may take.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        source: EnrollmentSource,
        sink: DecisionSink,
        policy: Policy | None = None,
        max_age_ms: int = 0,
        look_up_timeout_ms: int = LOOK_UP_TIMEOUT_MS,
        append_timeout_ms: int = APPEND_TIMEOUT_MS,
    ) -> None:
        self.gate: Final = gate
        self._protocol = Protocol(gate, has_policy=policy is not None, max_age_ms=max_age_ms)
        self._source = source
        self._sink = sink
        self._policy = policy
        self._look_up_timeout_s = look_up_timeout_ms / 1000
        self._append_timeout_s = append_timeout_ms / 1000

    def ask(self, tool: str, *, params: Any = None, policy: Answered = UNASKED, audit_id: str | None = None) -> Permit:
        """Gives a permit when the call may run and its decision is durable: `with guard.ask("arm.move"): …`.

        Raises `Denied` when it may not, and `MalformedError` when it is no call; nothing is written down then. The
        arguments are those of `ToolCall`.
        """
        return self.ask_call(ToolCall(tool, params, policy, audit_id))

    def ask_call(self, call: ToolCall) -> Permit:
        """As `ask`, of a call that is made already."""
        steps = self._protocol.ask(call)
        try:
            step = next(steps)
            while True:
                try:
                    result = self._do(step)
                except Exception as error:  # noqa: BLE001 - the protocol says what it means
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return Permit(self._protocol, call.tool, end.value, self._append)

    def _do(self, step: Step) -> object:
        match step:
            case AskPolicy(tool, params):
                return None if self._policy is None else self._policy(tool, params)
            case LookUp(node_id):
                return self._look_up(node_id)
            case Append(frames):
                return self._append(frames)

    def _look_up(self, node_id: str) -> Answer:
        asked = time.monotonic()
        answer = self._source.look_up(node_id, self._look_up_timeout_s)
        if time.monotonic() - asked > self._look_up_timeout_s:
            raise _late("the look-up", self._look_up_timeout_s)
        return answer

    def _append(self, frames: Frames) -> object:
        # Whatever it gives: `None` by its type, and the protocol sees to it.
        append: Callable[[Frames, float], object] = self._sink.append
        return append(frames, self._append_timeout_s)


class AsyncPermit(BasePermit):
    """The right to run one tool once, as `Permit`."""

    def __init__(
        self, protocol: Protocol, tool: str, audit_id: str, write: Callable[[Frames], Awaitable[object]]
    ) -> None:
        super().__init__(protocol, tool, audit_id)
        self._write = write

    async def finish(self, outcome: Outcome = "completed") -> None:
        """Writes down how the tool went; the first one counts. It never raises: what counted was the decision."""
        if (frames := self._frames(outcome)) is not None:
            with contextlib.suppress(Exception):
                await self._write(frames)

    async def __aenter__(self) -> AsyncPermit:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.finish(outcome_of(error))


class Asking:
    """A call that is asked when it is awaited, or entered: `async with guard.ask("arm.move"): …`.

    It holds a coroutine, so that Python warns of a call that was forgotten to be awaited: nobody has allowed it.
    """

    def __init__(self, asked: Coroutine[Any, Any, AsyncPermit]) -> None:
        self._asked = asked
        self._permit: AsyncPermit | None = None

    def __await__(self) -> Generator[Any, None, AsyncPermit]:
        return self._asked.__await__()

    async def __aenter__(self) -> AsyncPermit:
        self._permit = await self
        return self._permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            await self._permit.__aexit__(kind, error, trace)


class AsyncGuard:
    """`Guard` for asyncio: any number of tasks. The arguments are the same, its source and sink are awaited."""

    def __init__(
        self,
        gate: Gate,
        *,
        source: AsyncEnrollmentSource,
        sink: AsyncDecisionSink,
        policy: AsyncPolicy | None = None,
        max_age_ms: int = 0,
        look_up_timeout_ms: int = LOOK_UP_TIMEOUT_MS,
        append_timeout_ms: int = APPEND_TIMEOUT_MS,
    ) -> None:
        self.gate: Final = gate
        self._protocol = Protocol(gate, has_policy=policy is not None, max_age_ms=max_age_ms)
        self._source = source
        self._sink = sink
        self._policy = policy
        self._look_up_timeout_s = look_up_timeout_ms / 1000
        self._append_timeout_s = append_timeout_ms / 1000

    def ask(self, tool: str, *, params: Any = None, policy: Answered = UNASKED, audit_id: str | None = None) -> Asking:
        """As `Guard.ask`: `async with guard.ask("arm.move"): …`, or `permit = await guard.ask("arm.move")`."""
        return self.ask_call(ToolCall(tool, params, policy, audit_id))

    def ask_call(self, call: ToolCall) -> Asking:
        """As `ask`, of a call that is made already."""
        return Asking(self._ask(call))

    async def _ask(self, call: ToolCall) -> AsyncPermit:
        steps = self._protocol.ask(call)
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._do(step)
                except Exception as error:  # noqa: BLE001 - the protocol says what it means
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return AsyncPermit(self._protocol, call.tool, end.value, self._append)

    async def _do(self, step: Step) -> object:
        match step:
            case AskPolicy(tool, params):
                answer = None if self._policy is None else self._policy(tool, params)
                return await answer if inspect.isawaitable(answer) else answer
            case LookUp(node_id):
                return await self._look_up(node_id)
            case Append(frames):
                return await self._append(frames)

    async def _look_up(self, node_id: str) -> object:
        asked = time.monotonic()
        answer = await _within(self._look_up_timeout_s, "the look-up", self._source.look_up(node_id))
        # Where the loop stalled, it finds the answer and the end of its time at once.
        if time.monotonic() - asked > self._look_up_timeout_s:
            raise _late("the look-up", self._look_up_timeout_s)
        return answer

    async def _append(self, frames: Frames) -> object:
        return await _within(self._append_timeout_s, "the append", self._sink.append(frames))


async def _within(timeout_s: float, what: str, doing: Awaitable[object]) -> object:
    """What comes of it in time. `asyncio.wait_for` waits for what does not let itself be cancelled, and takes its word."""
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if not task.done():
            raise _late(what, timeout_s)
        if task.cancelled():
            # By itself: whoever asked goes on.
            raise RuntimeError(f"{what} was cancelled")
        return task.result()
    finally:
        if task.cancel():
            task.add_done_callback(_forget)


def _forget(task: asyncio.Future[object]) -> None:
    """What comes of it too late is nobody's business."""
    if not task.cancelled():
        task.exception()


def _late(what: str, timeout_s: float) -> TimeoutError:
    return TimeoutError(f"{what} took longer than {timeout_s * 1000:.0f} ms")


def outcome_of(error: BaseException | None) -> Outcome:
    """How a tool went that ended with this."""
    if error is None:
        return "completed"
    return "failed" if isinstance(error, Exception) else "abandoned"
