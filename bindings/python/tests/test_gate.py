"""What a gate does beside deciding: refusals, memory, the module it takes, what it is told."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ACCEPTED, GOOD, NODE_ID, ROOT, enrolled, load

from autonomy_gate import (
    REASONS,
    REASONS_DIGEST,
    Call,
    Denied,
    Gate,
    Lease,
    MalformedError,
    Reason,
    RefusedError,
    TrappedError,
    UnsupportedError,
    new_audit_id,
)
from autonomy_gate.engine import Instance

WASM = (ROOT / "gate-wasm/gate.wasm").read_bytes()
TEXT = b'(module (memory (export "memory") 1) (global (export "gate_abi_major") i32 (i32.const 1)) %s)'
EMPTY = bytes.fromhex("0061736d01000000")


@pytest.fixture
def gate():
    gate = load()
    gate.set_enrollment(enrolled())
    return gate


def test_a_call_is_allowed_and_denied_once_the_node_is_revoked(gate):
    assert gate.bundle.digest == ACCEPTED["digest"]
    assert gate.verdict() == "pass"
    allowed = gate.decide("tool.echo")
    assert (allowed.effect, allowed.reason, allowed.remedy, allowed.verdict) == ("allow", None, None, "pass")
    facts, decision = allowed.frames
    assert (facts["kind"], facts["attrs"]["id"]) == ("autonomy.facts", allowed.facts)
    assert (decision["kind"], decision["audit_id"]) == ("autonomy.decision", allowed.audit_id)

    gate.set_enrollment(enrolled(status="revoked", serial=2))
    denied = gate.decide("tool.echo", facts_logged=allowed.facts)
    assert denied.reason is denied.verdict is Reason.ENROLLMENT_REVOKED
    assert denied.remedy == Reason.ENROLLMENT_REVOKED.remedy
    assert denied.facts != allowed.facts

    explained = gate.explain()
    assert (explained.verdict, explained.facts_id, len(explained.sub_checks)) == (denied.reason, denied.facts, 10)
    failed = [check for check in explained.sub_checks if check.outcome == "fail"]
    assert [(check.reason, check.found) for check in failed] == [(Reason.ENROLLMENT_REVOKED, "`revoked`")]


def test_the_files_of_a_bundle_are_views_of_its_tar(gate):
    for file in gate.bundle.files:
        assert bytes(file.content) == GOOD["bundle"][file.offset : file.offset + len(file.content)]
    assert [[file.path, file.digest] for file in gate.bundle.files] == ACCEPTED["files"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"policy": None}, "the call is malformed"),
        ({"policy": Reason.WAL_UNAVAILABLE}, "audit: wal_unavailable"),
        ({"tool": "no tool"}, "the call is malformed"),
        ({"tool": None}, "the call is malformed"),
        ({"tool": "\ud800"}, "the call is malformed"),
        ({"now_ms": float("nan")}, "the call is malformed"),
        ({"now_ms": 1.5}, "the call is malformed"),
        ({"now_ms": True}, "the call is malformed"),
        ({"now_ms": -1}, "the call is malformed"),
        ({"facts_logged": "sha256:1"}, "the call is malformed"),
    ],
)
def test_a_malformed_call_raises(gate, call, words):
    with pytest.raises(MalformedError, match=words):
        gate.decide(**{"tool": "tool.echo", **call})
    assert gate.decide("tool.echo").allowed


def test_a_misspelt_argument_raises(gate):
    with pytest.raises(TypeError, match="polciy"):
        gate.decide("tool.echo", polciy=Reason.DENIED)
    with pytest.raises(TypeError, match="node"):
        load(node="robot-7")


def test_a_bundle_that_is_no_bytes_raises(gate):
    with pytest.raises(TypeError):
        gate.load_bundle(1 << 50)
    assert gate.decide("tool.echo").allowed


@pytest.mark.parametrize("answer", ["[]", b"\xff", "\ud800", {"answer": "maybe"}, None, 7, {"answer": object()}])
def test_an_answer_that_is_none_makes_the_enrollment_unavailable(gate, answer):
    with pytest.raises(MalformedError, match="malformed"):
        gate.set_enrollment(answer)
    assert gate.verdict() is Reason.ENROLLMENT_UNAVAILABLE


@pytest.mark.parametrize("answer", ["x" * (68 << 20), Lease(b"x" * (68 << 20))], ids=["answer", "lease"])
def test_an_answer_that_is_too_large_does_not_leave_the_one_before_it(gate, answer):
    assert gate.decide("tool.echo").allowed
    with pytest.raises(MalformedError, match="larger than the gate takes"):
        gate.set_enrollment(answer)
    assert gate.verdict() is Reason.ENROLLMENT_UNAVAILABLE
    assert gate.decide("tool.echo").reason is Reason.ENROLLMENT_UNAVAILABLE


@pytest.mark.parametrize("envelope", [b"{}", "{}", b"", "\u00e9", "\ud800", None, 7])
def test_a_lease_that_does_not_hold_is_untrusted(gate, envelope):
    with pytest.raises(RefusedError):
        gate.set_enrollment(Lease(envelope))
    assert gate.verdict() is Reason.ENROLLMENT_UNTRUSTED
    assert gate.decide("tool.echo").reason is Reason.ENROLLMENT_UNTRUSTED


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"mode": ""}, MalformedError),
        ({"mode": "Enforce"}, MalformedError),
        ({"node_id": "a b"}, MalformedError),
        ({"threshold": 0}, MalformedError),
        ({"trusted_keys": "no key"}, MalformedError),
        ({"trusted_keys": []}, RefusedError),
        ({"bundle": b""}, RefusedError),
    ],
)
def test_a_configuration_that_does_not_hold_loads_no_gate(over, error):
    with pytest.raises(error):
        load(**over)


@pytest.mark.parametrize("now_ms", [-1, float("nan"), float("inf"), 2**53])
def test_a_verdict_at_no_time_raises(gate, now_ms):
    with pytest.raises(MalformedError, match="is not a time"):
        gate.verdict(now_ms)


def test_a_verdict_at_what_is_no_number_is_no_trap(gate):
    with pytest.raises(ValueError, match="could not convert"):
        gate.verdict("now")
    assert gate.verdict() == "pass"


def test_a_refused_bundle_leaves_the_one_that_is_active(gate):
    with pytest.raises(RefusedError):
        gate.load_bundle(bytes(512))
    assert gate.bundle.digest == ACCEPTED["digest"]
    assert gate.verdict() == "pass"


def test_a_bundle_that_is_too_large_is_refused_before_it_is_copied(gate):
    with pytest.raises(MalformedError, match="larger than the gate takes"):
        gate.load_bundle(bytes(65 * 1024 * 1024))
    assert gate.verdict() == "pass"


def test_a_batch_decides_what_as_many_calls_would(gate):
    calls = [
        Call(
            "no tool" if at % 7 == 0 else f"tool.{at}",
            policy=Reason.DENIED if at % 3 == 0 else Reason.ALLOWED,
            policy_detail="a line\u2028 and another\x0b",
            audit_id=f"a-{at}",
            now_ms=1_800_000_000_000,
        )
        for at in range(2_500)
    ]

    def alone(call):
        try:
            return gate.decide(
                call.tool,
                policy=call.policy,
                policy_detail=call.policy_detail,
                audit_id=call.audit_id,
                now_ms=call.now_ms,
            )
        except MalformedError as error:
            return error

    for one, together in zip(map(alone, calls), gate.decide_batch(calls), strict=True):
        if isinstance(one, MalformedError):
            assert str(together) == str(one)
        else:
            assert together == one
    assert gate.decide_batch([]) == []


def test_a_batch_that_traps_is_decided_call_by_call():
    gate = load(module=(ROOT / "target/gate-trap.wasm").read_bytes())
    gate.set_enrollment(enrolled())
    decisions = gate.decide_batch([Call("tool.echo"), Call("gate.trap"), Call("no tool"), Call("tool.echo")])
    assert [getattr(decision, "effect", None) for decision in decisions] == ["allow", "deny", None, "allow"]


def test_a_million_decisions_leave_the_memory_as_it_was():
    # On a busy machine they take more than the minute for which an answer stands.
    gate = load(max_staleness_ms=3_600_000)
    gate.set_enrollment(enrolled())
    # More forms of calls than the module remembers, none as long as another: what it remembers turns over, again and again.
    facts = gate.decide("tool.0").facts
    refs = ["p" * (1 + at // 10 % 40) for at in range(1_000)]
    calls = [Call("tool.0", policy_ref=ref, audit_id="a", facts_logged=facts) for ref in refs]

    def decide():
        assert all(decision.allowed for decision in gate.decide_batch(calls))

    decide()
    instance, before = gate._instance, gate.memory_bytes
    for _ in range(1_000):
        decide()
    for call in calls * 20:
        assert gate.decide(call.tool, policy_ref=call.policy_ref, audit_id="a", facts_logged=facts).allowed
    assert (gate._instance, gate.memory_bytes) == (instance, before)
    assert [decision.facts for decision in gate.decide_batch(calls[:1])] == [facts]


def test_integers_go_through_as_they_came():
    gate = load()
    most = 2**64 - 1
    for answer in (
        json.dumps(enrolled(serial=most)),
        json.dumps(enrolled(serial=most)).encode(),
        enrolled(serial=most),
    ):
        gate.set_enrollment(answer)
        assert f'"serial":{most}' in gate.decide("tool.echo").frames.json


def test_an_input_longer_than_any_before_gets_room(gate):
    with pytest.raises(MalformedError):
        gate.set_enrollment(json.dumps({**enrolled(), "more": "x" * 1_000_000}))
    gate.set_enrollment(enrolled())
    assert gate.decide("tool.echo", policy_detail="x" * 20_000).allowed


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (EMPTY, "ABI is `none`"),
        (b"<!doctype html>", "what was given as the module is none"),
        (bytes.fromhex("0061736d01000000010401600000020701016101620000"), "imports `a.b`"),
        (b'(module (global (export "gate_abi_major") i32 (i32.const 1)))', "no memory"),
        (TEXT % b"", "no `gate_input`"),
        (
            TEXT % b'(func (export "gate_input") (param i64) (result i32) i32.const 0)',
            "`gate_input` takes or gives something else",
        ),
        (WASM.replace(b"attestation: not_enrolled", b"attestation: not_enrolleD"), "the module's reasons are"),
    ],
)
def test_another_module_is_refused(module, words):
    with pytest.raises(UnsupportedError, match=re.escape(words)):
        Gate(module=module)


def test_a_module_that_needs_more_memory_than_it_may_have_makes_no_gate():
    with pytest.raises(TrappedError, match=r"the gate trapped while it was made: .*memory"):
        Gate(module=b'(module (memory (export "memory") 4000))')


def test_a_module_may_be_given():
    assert Gate(module=WASM, node_id=NODE_ID).verdict() is Reason.BUNDLE_UNVERIFIED


def test_a_process_that_forks_goes_on_deciding_and_compiling():
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support import ROOT, enrolled, load
gate = load()
gate.set_enrollment(enrolled())
child = os.fork()
assert gate.decide("tool.echo").allowed
assert load(module=(ROOT / "gate-wasm/gate.wasm").read_bytes()).bundle is not None
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, Path(__file__).parent], check=True, timeout=60)


def test_a_process_that_forks_while_another_thread_compiles_goes_on():
    code = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import importlib.resources
from support import ROOT, load
begun, forked = threading.Event(), threading.Event()
files = importlib.resources.files
def slow(package):
    begun.set()
    forked.wait(30)
    return files(package)
importlib.resources.files = slow
thread = threading.Thread(target=load)
thread.start()
begun.wait(30)
child = os.fork()
if not child:
    signal.alarm(30)
    importlib.resources.files = files
    load()
    os._exit(0)
forked.set()
thread.join()
assert os.waitpid(child, 0)[1] == 0
"""
    # From 3.12 on, Python warns of any fork beside threads.
    command = [sys.executable, "-W", "ignore", "-c", code, Path(__file__).parent]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_a_gate_that_was_interrupted_is_told_everything_again(gate, monkeypatch, error):
    def interrupt(*_):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(Instance, "_send", interrupt)
    with pytest.raises(TrappedError if error is MemoryError else error):
        gate.set_enrollment(enrolled(status="revoked", serial=2))
    assert gate.verdict() is Reason.ENROLLMENT_REVOKED
    gate.set_enrollment(enrolled(serial=3))
    assert gate.decide("tool.echo").allowed


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_was_interrupted_once_the_module_had_the_bundle_is_not_the_active_one(monkeypatch, error):
    gate = load(bundle=None)
    gate.set_enrollment(enrolled())

    def interrupt(*_):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr("autonomy_gate.gate._bundle", interrupt)
    with pytest.raises(error):
        gate.load_bundle(GOOD["bundle"])
    assert (gate.bundle, gate.verdict()) == (None, Reason.BUNDLE_UNVERIFIED)
    assert gate.load_bundle(GOOD["bundle"]) is gate.bundle
    assert gate.verdict() == "pass"


def test_a_process_that_forks_while_other_threads_ask_goes_on_asking():
    code = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from support import ENROLLMENT_REF, NODE_ID, load
from autonomy_gate import Guard, MemoryHost
host = MemoryHost()
host.enroll(NODE_ID, ENROLLMENT_REF)
guard = Guard(load(), source=host, sink=host)
def ask():
    while True:
        guard.ask("tool.echo")
        host.frames.clear()
for _ in range(8):
    threading.Thread(target=ask, daemon=True).start()
for _ in range(20):
    child = os.fork()
    if not child:
        signal.alarm(30)
        guard.ask("tool.echo")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    # From 3.12 on, Python warns of any fork beside threads.
    command = [sys.executable, "-W", "ignore", "-c", code, Path(__file__).parent]
    subprocess.run(command, check=True, timeout=300)


def test_the_reasons_are_the_modules(gate):
    assert gate.info()["reasons"] == REASONS_DIGEST
    assert [reason.number for reason in REASONS.values()] == list(REASONS)
    assert f"{Reason.NOT_ENROLLED}" == str(Reason.NOT_ENROLLED) == Reason.NOT_ENROLLED == "attestation: not_enrolled"
    assert Reason("attestation: not_enrolled") is Reason.NOT_ENROLLED
    assert all(reason.remedy for reason in Reason)


def test_audit_ids_sort_by_time():
    ids = [new_audit_id(now_ms) for now_ms in range(1_700_000_000_000, 1_700_000_000_100)]
    assert ids == sorted(ids)
    form = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(audit_id) for audit_id in ids)
    assert int(ids[0].replace("-", "")[:12], 16) == 1_700_000_000_000


def test_a_denial_survives_another_process():
    denied = pickle.loads(pickle.dumps(Denied(Reason.NOT_ENROLLED, "a", "fleet@1")))
    assert (denied.reason, denied.audit_id, denied.policy_ref, denied.status) == (
        Reason.NOT_ENROLLED,
        "a",
        "fleet@1",
        403,
    )
