"""Measures the gate beside its peers, on the fixture of docs/src/spec/conformance.md. `cargo xtask bench python` runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import cedarpy
import opapywasm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support import ENROLLMENT_REF, NODE_ID, enrolled, load  # noqa: E402

from autonomy_gate import Decision, Gate, Guard, NativeHost, Reason  # noqa: E402 - after the path

AUTONOMY = os.environ.get("AUTONOMY", "autonomy")
ENGINE = f"wasmtime {version('wasmtime')}"
CALLS = 20_000
DURABLE_CALLS = 2_000
LOADS = 20

LOAD = f"""
import sys, time
sys.path.insert(0, {str(HERE.parent / "tests")!r})
from pathlib import Path
started = time.perf_counter_ns()
import autonomy_gate
loaded = time.perf_counter_ns()
import support
again = time.perf_counter_ns()
support.load()
print(loaded - started + time.perf_counter_ns() - again)
"""

CEDAR = """
permit (principal, action == Action::"run", resource)
when {
  principal.status == "active" &&
  principal.enrollment_ref == resource.enrollment_ref &&
  ["<none>", "pending", "acknowledged", "active"].contains(principal.rollout_state)
};
"""


def said(what: str, engine: str, taken: list[int]) -> None:
    taken.sort()
    line = {"language": "python", "engine": engine, "what": what}
    line |= {f"p{at}_ns": taken[len(taken) * at // 100] for at in (50, 95, 99)}
    print("bench", json.dumps(line | {"calls": len(taken)}), flush=True)


def measured(what: str, engine: str, call: Callable[[], object], calls: int = CALLS) -> None:
    for _ in range(calls // 20):
        call()
    clock = time.perf_counter_ns
    taken = []
    for _ in range(calls):
        started = clock()
        call()
        taken.append(clock() - started)
    said(what, engine, taken)


def loads() -> None:
    runs = [subprocess.run([sys.executable, "-c", LOAD], capture_output=True, check=True) for _ in range(LOADS)]
    said("load", ENGINE, [int(run.stdout) for run in runs])


def gate() -> None:
    measured_gate = load(max_staleness_ms=10 * 60_000)
    measured_gate.set_enrollment(enrolled())
    logged = measured_gate.decide("tool.echo").facts
    measured("verdict", ENGINE, measured_gate.verdict)

    tools = cycle(f"tool.{at}" for at in range(64))

    def decide() -> Decision:
        return measured_gate.decide(next(tools), policy=Reason.ALLOWED, facts_logged=logged)

    assert decide().allowed
    assert len(list(decide().frames)) == 1
    measured("decide", ENGINE, decide)
    refs = iter([f"fleet@{at}" for at in range(2 * CALLS)])
    measured(
        "decide_first",
        ENGINE,
        lambda: measured_gate.decide("tool.echo", policy=Reason.ALLOWED, policy_ref=next(refs), facts_logged=logged),
    )
    with tempfile.TemporaryDirectory() as place:
        durable(Path(place), measured_gate)


def durable(place: Path, measured_gate: Gate) -> None:
    command = [AUTONOMY, "--home", str(place / "home")]
    token = str(place / "token")
    subprocess.run([*command, "host", "token", "--out", token], check=True, capture_output=True)
    enroll = ["node", "enroll", "--node-id", NODE_ID, "--enrollment-ref", ENROLLMENT_REF]
    subprocess.run([*command, *enroll], check=True, capture_output=True)
    serve = [*command, "host", "serve", "--listen", "127.0.0.1:0", "--token-file", token]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = next(
                found[1] for line in process.stdout or () if (found := re.search(r"listening on (\S+)", line))
            )
            with NativeHost(url=f"http://{address.removeprefix('http://')}", token_file=token) as host:
                guard = Guard(measured_gate, source=host, sink=host)
                measured("decide_durable", ENGINE, lambda: guard.ask("tool.echo"), DURABLE_CALLS)
        finally:
            process.terminate()


def cedar() -> None:
    """The policy and the entities are parsed once, the request each time: as the gate has its bundle and its answer."""
    policies = cedarpy.PolicySet.from_str(CEDAR)
    row = {"status": "active", "enrollment_ref": ENROLLMENT_REF, "rollout_state": "<none>"}
    entities = cedarpy.Entities.from_json_str(
        json.dumps(
            [
                {"uid": {"type": "Node", "id": NODE_ID}, "attrs": row, "parents": []},
                {"uid": {"type": "Bundle", "id": "b"}, "attrs": {"enrollment_ref": ENROLLMENT_REF}, "parents": []},
            ]
        )
    )
    request = {"principal": f'Node::"{NODE_ID}"', "action": 'Action::"run"', "resource": 'Bundle::"b"', "context": {}}
    assert cedarpy.is_authorized(request, policies, entities).decision == cedarpy.Decision.Allow
    engine = f"cedarpy {version('cedarpy')}"
    measured("decide", engine, lambda: cedarpy.is_authorized(request, policies, entities))


def opa() -> None:
    """The policy is compiled once; the answer is its input."""
    policy = opapywasm.OpaWasmPolicy.from_wasm_file(Path(os.environ["AUTONOMY_GATE_OPA"]))
    row = enrolled()["enrollment"]
    asked = {"node_id": NODE_ID, "enrollment": row, "bundle": {"enrollment_ref": ENROLLMENT_REF}}
    assert policy.evaluate(asked) == [{"result": True}] or policy.evaluate(asked) is True
    measured("decide", f"opa-py-wasm {version('opa-py-wasm')}", lambda: policy.evaluate(asked), CALLS // 10)
    policy.close()


if __name__ == "__main__":
    loads()
    gate()
    cedar()
    opa()
