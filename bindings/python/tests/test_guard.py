"""From a call to a permit, on both guards: what is looked up, decided and written down."""

import asyncio
import contextlib
import json
import re
import threading
import time

import pytest
from support import ENROLLMENT_REF, NODE_ID, Threads, corpus, enrolled, kinds, load, now_ms, outcomes, why

from autonomy_gate import (
    AsyncGuard,
    AsyncMemoryHost,
    Denied,
    FactsNotLoggedError,
    Lease,
    MalformedError,
    PolicyAnswer,
    Reason,
)


def rig(side, *, gate=None, **options):
    host = side.memory_host()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    return host, side.guard(gate or load(), **{"source": host, "sink": host, **options})


def denied(side, guard, reason, **options):
    with pytest.raises(Denied) as caught:
        side.ask(guard, **options)
    assert caught.value.reason is reason
    return caught.value


def reasons(frames):
    return [frame["attrs"]["reason"] for frame in frames if frame["kind"] == "autonomy.decision"]


def test_a_permit_comes_with_its_frames_and_says_once_how_the_tool_went(side):
    host, guard = rig(side)
    permit = side.ask(guard, policy=PolicyAnswer(Reason.ALLOWED, policy_ref="fleet@1"))
    assert kinds(host.frames) == ["facts", "decision"]
    assert host.frames[1]["attrs"]["policy_ref"] == "fleet@1"
    side.finish(permit, "failed")
    side.finish(permit, "completed")
    _, _, action = host.frames
    assert (action["kind"], action["audit_id"], action["node_id"]) == ("autonomy.action", permit.audit_id, NODE_ID)
    assert (action["attrs"]["tool"], action["attrs"]["outcome"]) == ("tool.echo", "failed")
    assert type(action["attrs"]["took_ms"]) is int


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "completed"), (OSError, "failed"), (KeyboardInterrupt, "abandoned")]
)
def test_a_block_says_how_the_tool_went(side, error, outcome):
    host, guard = rig(side)

    def doing(_):
        if error is not None:
            raise error

    if error is None:
        side.run(guard, doing)
    else:
        with pytest.raises(error):
            side.run(guard, doing)
    assert outcomes(host.frames) == [outcome]


def test_a_block_is_not_entered_without_a_permit(side):
    host, guard = rig(side)
    host.revoke(NODE_ID)
    with pytest.raises(Denied):
        side.run(guard, lambda _: pytest.fail("it ran"))
    assert kinds(host.frames) == ["facts", "decision", "decision"]


def test_an_action_that_cannot_be_written_raises_nothing(side):
    host, guard = rig(side)
    permit = side.ask(guard)
    host.fault = OSError("disk full")
    side.finish(permit)
    assert outcomes(host.frames) == []


def test_a_revoke_denies_the_next_call_and_facts_are_logged_when_they_change(side):
    host, guard = rig(side)
    for _ in range(5):
        side.ask(guard)
    assert kinds(host.frames).count("facts") == 1
    host.revoke(NODE_ID)
    error = denied(side, guard, Reason.ENROLLMENT_REVOKED)
    assert error.status == 403
    assert str(error) == "the call is denied: attestation: enrollment_revoked"
    assert error.to_json() == (
        '{"decision":"deny","reason":"attestation: enrollment_revoked",'
        f'"policy_ref":null,"audit_id":"{error.audit_id}"}}'
    )
    assert kinds(host.frames).count("facts") == 2
    assert reasons(host.frames)[-2:] == ["policy: allowed", "attestation: enrollment_revoked"]


def test_advisory_lets_through_what_enforce_denies_and_writes_it_down(side):
    host, guard = rig(side, gate=load(mode="advisory"))
    host.revoke(NODE_ID)
    side.ask(guard)
    attrs = host.frames[2]["attrs"]
    assert (attrs["reason"], attrs["enforced"]) == (Reason.ENROLLMENT_REVOKED, False)


def test_what_was_told_is_told_again_once_half_of_its_time_is_over(side):
    ages_min = iter([59, 31, 29, 0])
    source = side.source(lambda _: {**enrolled(), "observed_at_ms": now_ms() - next(ages_min) * 60_000})
    host, guard = rig(side, gate=load(max_staleness_ms=3_600_000), source=source)
    for _ in range(4):
        side.ask(guard)
    assert kinds(host.frames).count("facts") == 3


@pytest.mark.parametrize("answer", [None, 7, [], {}, "<html>", b"", {"answer": "not_enrolled"}])
def test_what_is_no_answer_is_none(side, answer):
    host, guard = rig(side, source=side.source(lambda _: answer))
    denied(side, guard, Reason.ENROLLMENT_UNAVAILABLE)
    assert "malformed" in why(host.frames)


class NoTextError(Exception):
    def __str__(self):
        raise ValueError("it has no text")


class Changing(dict):
    """Another thread changes it."""

    def items(self):
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        float("nan"),
        {**enrolled(), "observed_at_ms": float("nan")},
        enrolled(status="active\ud800"),
        json.dumps(enrolled(status="?")).replace("?", "\ud800"),
        Changing(enrolled()),
        Lease(None),
        "x" * (68 << 20),
        Lease(b"x" * (68 << 20)),
        # It is read, and then there is no memory left for what it says.
        '{"answer":"unavailable","why":"' + "\\n" * (32 << 20) + '"}',
        NoTextError(),
        StopIteration(),
        StopAsyncIteration(),
        AssertionError(),
        MemoryError(),
        RecursionError(),
        asyncio.TimeoutError(),
    ],
    ids=lambda nonsense: type(nonsense).__name__,
)
def test_whatever_comes_after_an_answer_that_allowed_denies_and_the_next_one_counts(side, nonsense):
    answers = iter([enrolled, lambda: nonsense, enrolled])

    def look_up(_):
        answer = next(answers)()
        if isinstance(answer, Exception):
            raise answer
        return answer

    gate = load()
    host, guard = rig(side, gate=gate, source=side.source(look_up))
    side.ask(guard)
    reason = Reason.ENROLLMENT_UNTRUSTED if nonsense == Lease(None) else Reason.ENROLLMENT_UNAVAILABLE
    denied(side, guard, reason)
    assert gate.verdict() is reason
    assert reasons(host.frames)[-1] == reason
    side.ask(guard)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_call_whose_look_up_is_interrupted_has_no_permit(error):
    side = Threads()
    answers = iter([None, error, None])

    def look_up(_):
        if interrupt := next(answers):
            raise interrupt
        return enrolled()

    host, guard = rig(side, source=side.source(look_up))
    side.ask(guard)
    with pytest.raises(error):
        side.ask(guard)
    assert kinds(host.frames) == ["facts", "decision"]
    side.ask(guard)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda allowed, time: allowed.replace(time, time.replace(": ", ":000")),
        lambda allowed, time: allowed.replace(time, time.replace(": ", ":\f")),
        lambda allowed, time: allowed.replace(f", {time}}}", f"{time}, }}"),
        lambda allowed, time: allowed.replace(f"}}, {time}}}", f"{time}}}, }}"),
        lambda allowed, time: allowed.replace("{", "{" + time.replace(": ", ": 1.5") + ",", 1),
    ],
    ids=["zeros in front", "no white space of JSON", "comma behind", "within the row", "twice"],
)
def test_an_answer_that_only_looks_like_the_one_before_it_but_for_its_time_is_read(side, spoil):
    allowed = json.dumps(enrolled())
    answers = iter([allowed, spoil(allowed, re.search(r'"observed_at_ms": \d+', allowed)[0])])
    _, guard = rig(side, source=side.source(lambda _: next(answers)))
    side.ask(guard)
    denied(side, guard, Reason.ENROLLMENT_UNAVAILABLE)


def test_an_answer_counts_as_it_was_given_whatever_its_source_makes_of_it_later(side):
    given = enrolled(status="revoked")
    _, guard = rig(side, source=side.source(lambda _: given), max_age_ms=60_000)
    denied(side, guard, Reason.ENROLLMENT_REVOKED)
    given["enrollment"]["status"] = "active"
    denied(side, guard, Reason.ENROLLMENT_REVOKED)


def test_an_answer_that_is_late_is_none(side):
    def look_up(_):
        time.sleep(0.05)
        return enrolled()

    host, guard = rig(side, source=side.source(look_up), look_up_timeout_ms=20)
    denied(side, guard, Reason.ENROLLMENT_UNAVAILABLE)
    assert why(host.frames) == "the look-up took longer than 20 ms"


def test_a_source_without_a_look_up_has_not_answered(side):
    host, guard = rig(side, source=object())
    denied(side, guard, Reason.ENROLLMENT_UNAVAILABLE)
    assert "look_up" in why(host.frames)


def test_a_sink_without_an_append_denies(side):
    _, guard = rig(side, sink=object())
    denied(side, guard, Reason.WAL_UNAVAILABLE)


@pytest.mark.parametrize("mode", ["off", "advisory", "enforce"])
@pytest.mark.parametrize("error", [OSError("disk full"), FactsNotLoggedError(), StopIteration(), AssertionError()])
def test_an_append_that_fails_in_any_way_denies_in_every_mode(side, mode, error):
    def append(_):
        raise error

    _, guard = rig(side, gate=load(mode=mode), sink=side.sink(append))
    caught = denied(side, guard, Reason.WAL_UNAVAILABLE)
    assert caught.status == 503
    assert caught.__cause__ is not None


@pytest.mark.parametrize("given", [False, True, "done"])
def test_an_append_that_gives_something_is_not_durable(side, given):
    _, guard = rig(side, sink=side.sink(lambda _: given))
    assert "must give nothing" in str(denied(side, guard, Reason.WAL_UNAVAILABLE).__cause__)


def test_an_append_that_nobody_awaits_is_not_durable():
    async def write():
        pytest.fail("it was awaited")

    given = write()
    side = Threads()
    _, guard = rig(side, sink=side.sink(lambda _: given))
    denied(side, guard, Reason.WAL_UNAVAILABLE)
    given.close()


def test_a_gate_without_a_node_id_asks_nobody(side):
    _, guard = rig(side, gate=load(node_id=None), source=side.source(lambda _: pytest.fail("it was asked")))
    denied(side, guard, Reason.NODE_ID_UNSET)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PolicyAnswer(Reason.DENIED, "fleet@1", "not today"), Reason.DENIED),
        (None, Reason.UNDEFINED),
        (True, Reason.UNDEFINED),
        (PolicyAnswer(None), Reason.UNDEFINED),
        (ZeroDivisionError("line\n3"), Reason.EVALUATION_FAILED),
    ],
)
def test_the_policy_is_asked_and_one_without_an_answer_denies(side, answer, reason):
    asked = []

    def policy(tool, params):
        asked.append((tool, params))
        if isinstance(answer, Exception):
            raise answer
        return answer

    host, guard = rig(side, policy=policy)
    denied(side, guard, reason, params={"a": 1})
    assert asked == [("tool.echo", {"a": 1})]
    assert reasons(host.frames) == [reason]
    detail = {Reason.DENIED: "not today", Reason.EVALUATION_FAILED: "line 3"}.get(reason)
    assert host.frames[-1]["attrs"].get("detail") == detail


def test_an_error_of_a_policy_that_has_no_text_is_written_down_all_the_same(side):
    def policy(*_):
        raise NoTextError

    host, guard = rig(side, policy=policy)
    denied(side, guard, Reason.EVALUATION_FAILED)
    assert host.frames[-1]["attrs"]["detail"] == "NoTextError"


def test_an_error_of_a_policy_that_is_no_text_is_written_down_all_the_same(side):
    def policy(*_):
        raise FileNotFoundError("rules-\udcff.json")

    host, guard = rig(side, policy=policy)
    denied(side, guard, Reason.EVALUATION_FAILED)
    assert host.frames[-1]["attrs"]["detail"] == "rules-?.json"


def test_a_policy_that_was_asked_already_is_not_asked_again(side):
    _, guard = rig(side, policy=lambda *_: pytest.fail("it was asked"))
    side.ask(guard, policy=PolicyAnswer(Reason.ALLOWED))
    denied(side, guard, Reason.DENIED, policy=PolicyAnswer(Reason.DENIED))
    denied(side, guard, Reason.UNDEFINED, policy=None)


def test_a_malformed_call_writes_nothing_down(side):
    host, guard = rig(side)
    with pytest.raises(MalformedError):
        side.ask(guard, "no tool")
    assert host.frames == []


def test_an_answer_stands_for_its_age_and_no_longer(side):
    host, guard = rig(side, max_age_ms=3_600_000)
    side.ask(guard)
    host.revoke(NODE_ID)
    side.ask(guard)
    host, guard = rig(side, max_age_ms=5)
    side.ask(guard)
    host.revoke(NODE_ID)
    time.sleep(0.02)
    denied(side, guard, Reason.ENROLLMENT_REVOKED)


def test_a_lease_may_be_the_answer(side):
    decision = corpus("decision")
    settings, dimensions = decision["settings"], {d["name"]: d["values"] for d in decision["dimensions"]}
    answer = next(value for value in dimensions["answer"] if value["kind"] == "lease")
    gate = load(lease_keys=settings["lease_keys"], lease_threshold=settings["lease_threshold"])
    host, guard = rig(side, gate=gate, source=side.source(lambda _: Lease(answer["leases"][0].encode())))
    # It holds, and its time has passed.
    denied(side, guard, Reason.ENROLLMENT_STALE)
    assert kinds(host.frames) == ["facts", "decision", "decision"]


def test_of_two_look_ups_the_one_that_began_later_counts():
    side = Threads()
    began, release = threading.Event(), threading.Event()
    answers = iter(["early", "late"])

    def look_up(_):
        if next(answers) == "late":
            return enrolled(status="revoked", serial=2)
        old = enrolled()
        began.set()
        release.wait(10)
        return old

    _, guard = rig(side, source=side.source(look_up))
    caught = []
    early = threading.Thread(target=lambda: caught.append(denied(side, guard, Reason.ENROLLMENT_REVOKED)))
    early.start()
    began.wait(10)
    denied(side, guard, Reason.ENROLLMENT_REVOKED)
    release.set()
    early.join()
    assert len(caught) == 1


class SlowTasks:
    """A source whose look-ups do not end by themselves, and which of them were cancelled."""

    def __init__(self):
        self.began = asyncio.Event()
        self.cancelled = []

    async def look_up(self, node_id):
        self.began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.append(node_id)
            raise


def test_a_slow_source_of_tasks_is_cancelled():
    slow = SlowTasks()

    async def main():
        host = AsyncMemoryHost()
        guard = AsyncGuard(load(), source=slow, sink=host, look_up_timeout_ms=50)
        with pytest.raises(Denied) as caught:
            await guard.ask("tool.echo")
        assert caught.value.reason is Reason.ENROLLMENT_UNAVAILABLE
        assert why(host.frames) == "the look-up took longer than 50 ms"

    asyncio.run(main())
    assert slow.cancelled == [NODE_ID]


@pytest.mark.parametrize("given", [None, OSError("too late")])
def test_a_source_of_tasks_that_does_not_let_itself_be_cancelled_is_late_all_the_same(given):
    class Stubborn:
        def __init__(self):
            self.denied = asyncio.Event()

        async def look_up(self, node_id):
            self.task = asyncio.current_task()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            await self.denied.wait()
            if given is not None:
                raise given
            return enrolled()

    async def main():
        host, source = AsyncMemoryHost(), Stubborn()
        guard = AsyncGuard(load(), source=source, sink=host, look_up_timeout_ms=50)
        with pytest.raises(Denied) as caught:
            await asyncio.wait_for(guard.ask("tool.echo"), 25)
        assert caught.value.reason is Reason.ENROLLMENT_UNAVAILABLE
        assert why(host.frames) == "the look-up took longer than 50 ms"
        source.denied.set()
        await asyncio.wait([source.task])

    asyncio.run(main())


def test_a_look_up_that_is_cancelled_by_itself_has_not_answered():
    class Cancelled:
        async def look_up(self, node_id):
            raise asyncio.CancelledError

    async def main():
        host = AsyncMemoryHost()
        with pytest.raises(Denied) as caught:
            await AsyncGuard(load(), source=Cancelled(), sink=host).ask("tool.echo")
        assert caught.value.reason is Reason.ENROLLMENT_UNAVAILABLE
        assert why(host.frames) == "the look-up was cancelled"

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_looks_up_is_cancelled():
    slow = SlowTasks()

    async def main():
        host = AsyncMemoryHost()
        guard = AsyncGuard(load(), source=slow, sink=host)

        async def tool():
            await guard.ask("tool.echo")

        task = asyncio.create_task(tool())
        await slow.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert (slow.cancelled, host.frames) == ([NODE_ID], [])

    asyncio.run(main())


def test_python_warns_of_a_call_that_was_forgotten_to_be_awaited():
    host = AsyncMemoryHost()
    guard = AsyncGuard(load(), source=host, sink=host)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        guard.ask("tool.echo")
    assert host.frames == []


def test_a_policy_of_tasks_may_be_awaited():
    async def policy(*_):
        await asyncio.sleep(0)
        return PolicyAnswer(Reason.DENIED)

    async def main():
        host = AsyncMemoryHost()
        with pytest.raises(Denied) as caught:
            await AsyncGuard(load(), source=host, sink=host, policy=policy).ask("tool.echo")
        assert caught.value.reason is Reason.DENIED

    asyncio.run(main())


def test_a_task_that_is_cancelled_abandons_its_tool():
    host = AsyncMemoryHost()
    host.enroll(NODE_ID, ENROLLMENT_REF)

    async def main():
        guard = AsyncGuard(load(), source=host, sink=host)
        entered = asyncio.Event()

        async def tool():
            async with guard.ask("tool.echo"):
                entered.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(tool())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert outcomes(host.frames) == ["abandoned"]
