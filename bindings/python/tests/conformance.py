"""Runs the corpora on the installed package, and prints what docs/src/spec/conformance.md asks for."""

from __future__ import annotations

import hashlib
import itertools
import json
import time

from support import ENGINE, corpus, unpack

from autonomy_gate import REASONS, Frames, Gate, GateError, Lease, RefusedError
from autonomy_gate.engine import Instance, Module


class Transcript:
    """What was answered, of which the hash alone is kept."""

    def __init__(self):
        self._hash = hashlib.sha256()

    def line(self, *fields):
        self._hash.update(("\t".join("-" if field is None else str(field) for field in fields) + "\n").encode())

    def __str__(self):
        return f"sha256:{self._hash.hexdigest()}"


def check(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: found {found!r}, expected {expected!r}")


def signatures(transcript):
    """Every signature, on the very engine that runs the gate."""
    cases = corpus("signatures")["cases"]
    instance = Instance(Module.own(), b"{}")
    for case in cases:
        key, signature, message = (bytes.fromhex(case[name]) for name in ("key", "signature", "message"))
        valid = len(signature) == 64
        if valid:
            try:
                instance.verify_signature(key + signature + message)
            except GateError:
                valid = False
        check(case["name"], valid, case["valid"])
        transcript.line(case["name"], "valid" if valid else "invalid")
    return len(cases)


def bundles(transcript):
    """Every bundle, with the very text of its refusal."""
    document = corpus("bundles")
    for case in document["bundles"]:
        gate = Gate(trusted_keys=[document["keys"][name] for name in case["keys"]], threshold=case["threshold"])
        try:
            bundle = gate.load_bundle(unpack(case["tar"]))
        except RefusedError as error:
            check(case["name"], str(error), case.get("refused"))
            check(case["name"], gate.bundle, None)
            transcript.line(case["name"], "refused", error)
            continue
        want = case["accepted"]
        for name in ("digest", "enrollment_ref", "policy_ref", "schema_version"):
            check(case["name"], getattr(bundle, name), want[name])
        check(case["name"], [[file.path, file.digest] for file in bundle.files], want["files"])
        check(case["name"], list(bundle.signers), want["signers"])
        for file in bundle.files:
            check(file.path, f"sha256:{hashlib.sha256(file.content).hexdigest()}", file.digest)
        transcript.line(
            case["name"],
            "accepted",
            bundle.digest,
            bundle.name,
            bundle.version,
            bundle.channel,
            bundle.policy_version,
            bundle.schema_version,
            bundle.policy_ref,
            bundle.enrollment_ref,
            ",".join(bundle.signers),
            *(f"{file.path}={file.digest}@{file.offset}+{len(file.content)}" for file in bundle.files),
        )
    return len(document["bundles"])


def decisions(transcript):
    """Every decision: verdict, effect and frames."""
    document = corpus("decision")
    settings = document["settings"]
    modes, policies, tars, nodes, answers, *rows = (dimension["values"] for dimension in document["dimensions"])
    rows = [
        {name: value[name] for value in row for name in value if name != "name"} for row in itertools.product(*rows)
    ]
    stride = len(answers) * len(rows)
    expected = [document["outcomes"][at] for at, count in document["expected"] for _ in range(count)]
    cases = 0
    for (m, mode), (b, bundle), (n, node) in itertools.product(*(enumerate(values) for values in (modes, tars, nodes))):
        gate = Gate(
            mode=mode["mode"],
            node_id=node["node_id"],
            trusted_keys=settings["bundle_keys"],
            threshold=settings["bundle_threshold"],
            lease_keys=settings["lease_keys"],
            lease_threshold=settings["lease_threshold"],
            max_staleness_ms=settings["max_staleness_ms"],
            max_skew_ms=settings["max_skew_ms"],
        )
        if bundle["tar"] is not None:
            refused(gate.load_bundle, unpack(bundle["tar"]))
        for place, (answer, (at, row)) in enumerate(itertools.product(answers, enumerate(rows))):
            if at == 0 and answer.get("before") is not None:
                refused(gate.set_enrollment, Lease(answer["before"].encode()))
            tell(gate, answer, row, at)
            verdict = gate.verdict(settings["now_ms"])
            number = 0 if verdict == "pass" else verdict.number
            for p, policy in enumerate(policies):
                case = ((m * len(policies) + p) * len(tars) + b) * len(nodes) * stride + n * stride + place
                decision = gate.decide(
                    settings["tool"],
                    policy=REASONS[policy["reason"]],
                    audit_id=settings["audit_id"],
                    now_ms=settings["now_ms"],
                )
                want = expected[case]
                effect = 0 if decision.reason is None else decision.reason.number
                check(case, (number, effect), (want["verdict"], want["effect"]))
                check(case, decision.allowed, want["effect"] == 0)
                check(case, told(decision.frames), want["frames"])
                transcript.line(number, written(decision))
                cases += 1
    check("cases", cases, document["cases"])
    return cases


def refused(call, given):
    try:
        call(given)
    except RefusedError:
        return


def tell(gate, answer, row, at):
    match answer["kind"]:
        case "unavailable":
            gate.set_enrollment({"answer": "unavailable", "why": answer["why"]})
        case "not_enrolled":
            gate.set_enrollment({"answer": "not_enrolled", "observed_at_ms": answer["observed_at_ms"]})
        case "row":
            enrollment = {"node_id": "robot-7", **row, "serial": 7}
            observed = answer["observed_at_ms"]
            gate.set_enrollment({"answer": "enrolled", "enrollment": enrollment, "observed_at_ms": observed})
        case "lease":
            refused(gate.set_enrollment, Lease(answer["leases"][at].encode()))
        case kind:
            raise AssertionError(f"an answer of the kind {kind} is not known")


def told(frames: Frames):
    """What a decision's frames say, after the frame of the facts."""
    facts, *decided = frames
    check("the first frame", facts["kind"], "autonomy.facts")
    return [{name: f["attrs"][name] for name in ("layer", "outcome", "reason", "enforced")} for f in decided]


def written(decision):
    """The output of `gate_decide` again, from the fields."""
    head = {name: getattr(decision, name) for name in ("effect", "reason", "verdict", "facts")}
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"frames":{decision.frames.json}}}'


def main():
    for run in (signatures, bundles, decisions):
        transcript = Transcript()
        started = time.monotonic()
        cases = run(transcript)
        line = {
            "language": "python",
            "engine": ENGINE,
            "corpus": {"decisions": "decision"}.get(run.__name__, run.__name__),
            "cases": cases,
            "transcript": str(transcript),
            "ms": round((time.monotonic() - started) * 1000),
        }
        print("conformance", json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
