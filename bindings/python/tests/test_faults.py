"""The faults of docs/src/spec/conformance.md, on both guards: each denies, and the next call after it is right."""

import asyncio
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ENROLLMENT_REF, NODE_ID, PATIENT, ROOT, TOKEN, enrolled, load, now_ms, why

from autonomy_gate import (
    AsyncGuard,
    AsyncMemoryHost,
    Denied,
    Gate,
    Guard,
    MemoryHost,
    Reason,
    UnsupportedError,
)

MODES = ["off", "advisory", "enforce"]
# For a host that is slow on purpose.
TIMEOUT_MS = 1_000
# Far below what a fault holds for.
LATE_MS = 15_000


def guard(side, contract, mode="enforce", **times):
    host = side.native_host(**contract.where, token=TOKEN)
    return side.guard(load(mode=mode), source=host, sink=host, **{**PATIENT, **times})


def denied(side, guard, reason):
    with pytest.raises(Denied) as caught:
        side.ask(guard)
    assert caught.value.reason is reason
    assert caught.value.status == (503 if reason is Reason.WAL_UNAVAILABLE else 403)
    return caught.value


def right(side, guard, frames):
    """A call to which nothing stands in the way: it is allowed, by the gate as well, and written down."""
    permit = side.ask(guard)
    decided = [
        frame for frame in frames if frame["audit_id"] == permit.audit_id and frame["kind"] == "autonomy.decision"
    ]
    assert [frame["attrs"]["reason"] for frame in decided] == ["policy: allowed"]
    facts = [frame["attrs"]["facts"] for frame in frames if frame["kind"] == "autonomy.facts"]
    assert facts[-1]["enrollment"]["answer"] == "enrolled"


def of(method, fault):
    """The fault, on requests of a method alone."""
    return lambda handler: handler.command == method and fault(handler) is None


@pytest.mark.fault("host_down")
@pytest.mark.parametrize("mode", MODES)
def test_host_down(side, contract, mode):
    asked = guard(side, contract, mode)
    right(side, asked, contract.frames)
    contract.stop()
    assert denied(side, asked, Reason.WAL_UNAVAILABLE).__cause__ is not None
    denied(side, asked, Reason.WAL_UNAVAILABLE)
    contract.start()
    right(side, asked, contract.frames)


@pytest.mark.fault("source_down")
def test_source_down(side):
    host = side.memory_host()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    fault = ConnectionRefusedError("connection\nrefused")

    def look_up(_):
        if fault is not None:
            raise fault
        return enrolled()

    asked = side.guard(load(), source=side.source(look_up), sink=host)
    denied(side, asked, Reason.ENROLLMENT_UNAVAILABLE)
    assert why(host.frames) == "connection refused"
    fault = None
    right(side, asked, host.frames)


@pytest.mark.fault("host_slow")
def test_slow_look_up(side, contract):
    asked = guard(side, contract, look_up_timeout_ms=TIMEOUT_MS)
    contract.fault = of("GET", lambda handler: handler.hold())
    started = time.monotonic()
    denied(side, asked, Reason.ENROLLMENT_UNAVAILABLE)
    assert 0.9 * TIMEOUT_MS <= (time.monotonic() - started) * 1000 < LATE_MS
    assert f"longer than {TIMEOUT_MS} ms" in why(contract.frames)
    contract.fault = None
    right(side, asked, contract.frames)


@pytest.mark.fault("host_slow")
def test_slow_append(side, contract):
    asked = guard(side, contract, append_timeout_ms=TIMEOUT_MS)
    contract.fault = of("POST", lambda handler: handler.hold())
    started = time.monotonic()
    denied(side, asked, Reason.WAL_UNAVAILABLE)
    assert 0.9 * TIMEOUT_MS <= (time.monotonic() - started) * 1000 < LATE_MS
    assert len(contract.posts()) == 1
    contract.fault = None
    right(side, asked, contract.frames)


@pytest.mark.fault("host_slow")
def test_an_answer_that_drips_is_late_as_a_whole(side, contract):
    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(600):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    asked = guard(side, contract, look_up_timeout_ms=TIMEOUT_MS)
    contract.fault = of("GET", drip)
    started = time.monotonic()
    denied(side, asked, Reason.ENROLLMENT_UNAVAILABLE)
    assert (time.monotonic() - started) * 1000 < LATE_MS
    contract.fault = None
    right(side, asked, contract.frames)


def half(handler):
    handler.raw(200, b'{"answer":', length=100)
    handler.hang_up()


LOOK_UPS = {
    "no answer": (lambda handler: handler.say(200, {"answer": "sure"}), "malformed"),
    "no object": (lambda handler: handler.say(200, []), "malformed"),
    "no JSON": (lambda handler: handler.raw(200, b"<html>"), "malformed"),
    "no text": (lambda handler: handler.raw(200, b"\xff\xfe"), "malformed"),
    "another node": (lambda handler: handler.say(200, enrolled(node_id="robot-8")), "answered for node"),
    "half a body": (half, "broke off"),
    "endless headers": (lambda handler: handler.raw(200, b"", headers=[("x", "y" * 50_000)] * 4), "not HTTP"),
    "no HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0\r\n\r\n"), "not HTTP"),
    "nothing": (lambda handler: handler.hang_up(), "hung up|broke off"),
    "a redirect": (lambda handler: handler.raw(302, b"", headers=[("location", "/v1/health")]), "`302`"),
    "busy": (lambda handler: handler.say(503, {"error": "too\nbusy"}), "`503`: too busy"),
    "not found": (lambda handler: handler.say(404, {}), "`404`"),
}


@pytest.mark.fault("host_lying")
@pytest.mark.parametrize("lie", LOOK_UPS)
def test_look_up_lies(side, contract, lie):
    fault, words = LOOK_UPS[lie]
    asked = guard(side, contract)
    contract.fault = of("GET", fault)
    denied(side, asked, Reason.ENROLLMENT_UNAVAILABLE)
    assert re.search(words, why(contract.frames))
    contract.fault = None
    right(side, asked, contract.frames)


MUCH = 4 << 30
PIECE = b" " * (1 << 16)
WAYS = {
    "announced": (f"content-length: {MUCH}", PIECE),
    "chunked": ("transfer-encoding: chunked", b"%x\r\n%b\r\n" % (len(PIECE), PIECE)),
    "until close": ("connection: close", PIECE),
}


@pytest.mark.fault("host_lying")
@pytest.mark.parametrize("way", WAYS)
def test_of_4_gib_a_little_is_taken(side, contract, way):
    header, piece = WAYS[way]
    taken, over = [], threading.Event()

    def send(handler):
        try:
            handler.wfile.write(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
            for _ in range(MUCH // len(PIECE)):
                handler.wfile.write(piece)
                taken.append(len(piece))
        finally:
            handler.close_connection = True
            over.set()

    asked = guard(side, contract)
    contract.fault = of("GET", send)
    denied(side, asked, Reason.ENROLLMENT_UNAVAILABLE)
    assert over.wait(60)
    assert sum(taken) < 64 << 20
    assert "longer than 65536 bytes" in why(contract.frames)
    contract.fault = None
    right(side, asked, contract.frames)


APPENDS = {
    "no receipt": lambda handler: handler.say(200, {"durable": True}),
    "a receipt of words": lambda handler: handler.say(200, {"first_seq": "1", "last_seq": "2"}),
    "a receipt backwards": lambda handler: handler.say(200, {"first_seq": 2, "last_seq": 1}),
    "a list": lambda handler: handler.say(200, []),
    "no JSON": lambda handler: handler.raw(200, b"ok"),
    "half a body": half,
    "nothing": lambda handler: handler.hang_up(),
    "a redirect": lambda handler: handler.raw(307, b"", headers=[("location", "/v1/health")]),
    **{str(status): lambda handler, status=status: handler.say(status, {}) for status in (201, 202, 400, 413, 500)},
}


@pytest.mark.fault("append_lying")
@pytest.mark.parametrize("lie", APPENDS)
def test_append_lies(side, contract, lie):
    asked = guard(side, contract)
    # A connection is kept from here on: an append is not sent again on another one.
    side.ask(asked)
    contract.requests.clear()
    contract.fault = of("POST", APPENDS[lie])
    denied(side, asked, Reason.WAL_UNAVAILABLE)
    assert len(contract.posts()) == 1
    contract.fault = None
    right(side, asked, contract.frames)


@pytest.mark.fault("disk_full")
@pytest.mark.parametrize("mode", MODES)
def test_disk_full(side, contract, mode):
    asked = guard(side, contract, mode)
    contract.fault = of("POST", lambda handler: handler.say(503, {"error": "no space left on device"}))
    cause = denied(side, asked, Reason.WAL_UNAVAILABLE).__cause__
    assert "no space left on device" in str(cause)
    contract.fault = None
    right(side, asked, contract.frames)


@pytest.mark.fault("facts_lost")
def test_facts_lost(side, contract):
    asked = guard(side, contract)
    side.ask(asked)
    contract.facts.clear()
    contract.requests.clear()
    contract.frames.clear()
    side.ask(asked)
    assert len(contract.posts()) == 2
    assert [frame["kind"] for frame in contract.frames] == ["autonomy.facts", "autonomy.decision"]
    side.ask(asked)
    assert len(contract.posts()) == 3
    # A log that never has them is asked twice, and no more.
    contract.fault = of("POST", lambda handler: handler.say(409, {}))
    contract.requests.clear()
    denied(side, asked, Reason.WAL_UNAVAILABLE)
    assert len(contract.posts()) == 2
    contract.fault = None
    right(side, asked, contract.frames)


@pytest.mark.fault("token_wrong")
@pytest.mark.parametrize("mode", MODES)
def test_token_wrong(side, contract, mode):
    asked = guard(side, contract, mode)
    contract.token = "another"
    denied(side, asked, Reason.WAL_UNAVAILABLE)
    contract.token = TOKEN
    right(side, asked, contract.frames)


@pytest.mark.fault("other_abi")
def test_other_abi(side):
    module = (ROOT / "target/gate-abi-2.wasm").read_bytes()
    with pytest.raises(UnsupportedError, match=r"ABI is `2` and this package speaks `1`"):
        Gate(module=module)
    host = side.memory_host()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    right(side, side.guard(load(), source=host, sink=host), host.frames)


@pytest.mark.fault("trap")
@pytest.mark.parametrize("mode", MODES)
def test_trap(side, mode):
    module = (ROOT / "target/gate-trap.wasm").read_bytes()
    gate = load(module=module, mode=mode)
    host = side.memory_host()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    asked = side.guard(gate, source=host, sink=host)
    side.ask(asked)
    for _ in range(3):
        with pytest.raises(Denied) as caught:
            side.ask(asked, "gate.trap")
        assert caught.value.reason is Reason.WAL_UNAVAILABLE
    host.revoke(NODE_ID)
    if mode == "enforce":
        denied(side, asked, Reason.ENROLLMENT_REVOKED)
    host.enroll(NODE_ID, ENROLLMENT_REF)
    host.frames.clear()
    for _ in range(1000):
        side.ask(asked)
    assert sum(frame["kind"] == "autonomy.decision" for frame in host.frames) == 1000
    assert all(frame["attrs"].get("reason", "policy: allowed") == "policy: allowed" for frame in host.frames)


@pytest.mark.fault("trap")
def test_a_gate_alone_after_a_trap():
    gate = load(module=(ROOT / "target/gate-trap.wasm").read_bytes())
    gate.set_enrollment(enrolled())
    before = gate.decide("tool.echo")
    trapped = gate.decide("gate.trap")
    assert (trapped.effect, trapped.reason, trapped.facts, trapped.frames.json) == (
        "deny",
        Reason.WAL_UNAVAILABLE,
        None,
        "[]",
    )
    after = gate.decide("tool.echo", facts_logged=before.facts)
    assert (after.effect, after.facts, len(list(after.frames))) == ("allow", before.facts, 1)


@pytest.mark.fault("trap")
@pytest.mark.parametrize(
    ("mode", "reason"), [("enforce", Reason.ENROLLMENT_UNAVAILABLE), ("off", Reason.WAL_UNAVAILABLE)]
)
def test_a_trap_that_does_not_come_again_is_denied_and_written_down(monkeypatch, mode, reason):
    gate = load(mode=mode)
    gate.set_enrollment(enrolled())
    traps = iter([True])
    decide = type(gate._instance).decide

    def trapping(instance, call):
        if next(traps, False):
            raise RuntimeError("unreachable")
        return decide(instance, call)

    monkeypatch.setattr(type(gate._instance), "decide", trapping)
    trapped = gate.decide("tool.echo")
    assert (trapped.effect, trapped.reason) == ("deny", reason)
    if mode == "enforce":
        assert why(trapped.frames) == "the gate trapped: unreachable"
    assert gate.decide("tool.echo").verdict == ("pass" if mode == "enforce" else None)


@pytest.mark.fault("trap")
@pytest.mark.parametrize("mode", MODES)
def test_where_no_instance_can_be_told_a_call_is_denied(side, mode, monkeypatch):
    host = side.memory_host()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    asked = side.guard(load(mode=mode), source=host, sink=host)

    def trapping(*_):
        raise RuntimeError("unreachable")

    with monkeypatch.context() as patched:
        patched.setattr(type(asked.gate._instance), "set_enrollment", trapping)
        denied(side, asked, Reason.WAL_UNAVAILABLE)
    assert host.frames == []
    right(side, asked, host.frames)


def check_all(permits, frames):
    ids = [permit.audit_id for permit in permits]
    assert len(set(ids)) == 6400
    logged = [frame["audit_id"] for frame in frames if frame["kind"] == "autonomy.decision"]
    assert sorted(logged) == sorted(ids)
    tools = {frame["audit_id"]: frame["attrs"]["tool"] for frame in frames if frame["kind"] == "autonomy.decision"}
    assert all(tools[permit.audit_id] == permit._tool for permit in permits)


@pytest.mark.fault("threads")
def test_threads():
    host = MemoryHost()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    asked = Guard(load(), source=host, sink=host, **PATIENT)
    together = threading.Barrier(64)

    def work(worker):
        together.wait()
        return [asked.ask(f"tool.{worker}.{call}") for call in range(100)]

    with ThreadPoolExecutor(64) as pool:
        check_all([permit for permits in pool.map(work, range(64)) for permit in permits], host.frames)


@pytest.mark.fault("threads")
def test_tasks():
    async def main():
        host = AsyncMemoryHost()
        host.enroll(NODE_ID, ENROLLMENT_REF)
        asked = AsyncGuard(load(), source=host, sink=host, **PATIENT)

        async def work(worker):
            permits = []
            for call in range(100):
                permits.append(await asked.ask(f"tool.{worker}.{call}"))
                await asyncio.sleep(0)
            return permits

        workers = await asyncio.gather(*(work(worker) for worker in range(64)))
        check_all([permit for permits in workers for permit in permits], host.frames)

    asyncio.run(main())


@pytest.mark.fault("threads")
def test_threads_on_a_gate_that_traps_and_is_told_anew():
    gate = load(module=(ROOT / "target/gate-trap.wasm").read_bytes())
    answer = json.dumps(enrolled(serial=2**64 - 1))
    gate.set_enrollment(answer)

    def work(worker):
        for call in range(100):
            if worker == 0 and call % 10 == 0:
                assert gate.decide("gate.trap").reason is Reason.WAL_UNAVAILABLE
            decision = gate.decide(f"tool.{worker}.{call}", audit_id=f"{worker}-{call}", now_ms=now_ms())
            assert decision.allowed
            assert f'"tool":"tool.{worker}.{call}"' in decision.frames.json
            assert f'"audit_id":"{worker}-{call}"' in decision.frames.json

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(work, range(64)))
