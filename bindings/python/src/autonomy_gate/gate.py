"""The gate of one node: told what was found out, it decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final, TypeVar, Union, cast

from .audit import clock_ms, new_audit_id
from .documents import (
    Answer,
    Bundle,
    BundleFile,
    Call,
    Decision,
    Explanation,
    Frames,
    Info,
    Lease,
    Mode,
    SubCheck,
    Verdict,
    compact,
)
from .engine import Instance, Module
from .errors import GateError, MalformedError, TrappedError, line
from .fork import told_of_forks
from .reasons import REASONS, PolicyReason, Reason

T = TypeVar("T")

Settled = Union[Lease, bytes]
"""An answer that its source cannot change any more: a lease, or its JSON."""

BATCH_CALLS: Final = 1024
"""What the module takes in one call."""

VERDICTS: Final = cast("dict[str | None, Verdict | None]", {"pass": "pass", None: None, **{r.value: r for r in Reason}})
EFFECTS: Final[dict[str | None, Reason | None]] = {None: None, **{reason.value: reason for reason in Reason}}


class Gate:
    """One node's gate: told who it is, which bundle runs and what its enrollment source answered, it decides.

    It may be used from any number of threads: a lock lets one in at a time, for the microseconds of a decision. One
    instance holds all that was told, the highest serial of a lease among it. It does no I/O and reads no clock but the
    time of day: `Guard` looks up the enrollment before, and has what comes of it logged after.

    Args:
        node_id: Which node this is. Without one, every call that the gate is asked about is denied.
        mode: How far the gate is turned on.
        bundle: The tar of a bundle. One that does not verify raises, and there is no gate.
        trusted_keys: Who may sign bundles: SPKI PEM, one or several. None refuses every bundle.
        threshold: How many distinct ones of them must have signed.
        lease_keys: Who may sign leases. None refuses every lease.
        lease_threshold: How many distinct ones of them must have signed.
        max_staleness_ms: How long an answer counts after it was observed.
        max_skew_ms: How far the source's clock may be ahead.
        module: The bytes of another module than the one that comes with this package.
    """

    def __init__(
        self,
        *,
        node_id: str | None = None,
        mode: Mode = "off",
        bundle: bytes | None = None,
        trusted_keys: str | Sequence[str] = (),
        threshold: int = 1,
        lease_keys: str | Sequence[str] = (),
        lease_threshold: int = 1,
        max_staleness_ms: int = 60_000,
        max_skew_ms: int = 0,
        module: bytes | None = None,
    ) -> None:
        configuration = {
            "mode": mode,
            "node_id": node_id,
            "bundle_keys": _list(trusted_keys),
            "bundle_threshold": threshold,
            "lease_keys": _list(lease_keys),
            "lease_threshold": lease_threshold,
            "max_staleness_ms": max_staleness_ms,
            "max_skew_ms": max_skew_ms,
        }
        self.node_id: Final = node_id
        self.mode: Final = mode
        self.max_staleness_ms: Final = max_staleness_ms
        self._configuration = compact(configuration).encode()
        self._module = Module.own() if module is None else Module(module)
        self._lock = Lock()
        # What the instance was told, to tell it to the next one.
        self._loaded: tuple[bytes | None, Bundle | None] = (None, None)
        self._lease: Lease | None = None
        self._enrollment: Settled | None = None
        # `None` while it is used, and after a trap: the next call makes a new one.
        self._instance: Instance | None = None
        told_of_forks(self)
        self._guarded("was made", lambda _: None)
        if bundle is not None:
            self.load_bundle(bundle)

    @property
    def bundle(self) -> Bundle | None:
        """The active bundle."""
        return self._loaded[1]

    @property
    def memory_bytes(self) -> int:
        """How much memory the module holds."""
        with self._lock:
            return self._guarded("was measured", lambda instance: instance.memory_bytes)

    def info(self) -> Info:
        """What the module is."""
        with self._lock:
            return cast(Info, json.loads(self._guarded("said what it is", Instance.info)))

    def load_bundle(self, tar: bytes) -> Bundle:
        """Makes a tar the active bundle. One that is refused raises, and the bundle that was active stays so."""
        # The bytes of a buffer may change, and the next instance must be told the same.
        tar = bytes(memoryview(tar))

        def load(instance: Instance) -> Bundle:
            bundle = _bundle(instance.load_bundle(tar), tar)
            self._loaded = (tar, bundle)
            return bundle

        with self._lock:
            try:
                return self._guarded("read the bundle", load)
            except TrappedError:
                raise
            except GateError:
                # The facts say why there is none.
                if self.bundle is None:
                    self._loaded = (tar, None)
                raise

    def set_enrollment(self, answer: Answer) -> None:
        """Tells what the source answered about this node: a document, its JSON as it came, or a lease.

        What is malformed or does not hold raises, and the enrollment is then unavailable or untrusted: it denies.
        """
        told = settled(answer)

        def tell(instance: Instance) -> None:
            _tell(instance, told)
            if isinstance(told, Lease):
                self._lease = told

        with self._lock:
            self._enrollment = told
            self._guarded("read the enrollment", tell)

    def verdict(self, now_ms: float | None = None) -> Verdict:
        """What the gate finds at a time. Looks at no mode, and writes nothing down: a call is decided by `decide`."""
        at = float(clock_ms() if now_ms is None else now_ms)
        with self._lock:
            try:
                if self._instance is None:
                    self._instance = self._renew()
                # It changes nothing: the instance need not be gone after an interrupt.
                number = self._instance.verdict(at)
            except GateError:
                raise
            except Exception:  # noqa: BLE001 - a trap of any kind
                self._instance = None
                return Reason.ENROLLMENT_UNAVAILABLE
        if number == 0:
            return "pass"
        if number not in REASONS:
            raise MalformedError(f"`{at}` is not a time: give milliseconds since the Unix epoch")
        return cast(Verdict, REASONS[number])

    def decide(
        self,
        tool: str,
        *,
        policy: PolicyReason = Reason.ALLOWED,
        policy_ref: str | None = None,
        policy_detail: str | None = None,
        audit_id: str | None = None,
        now_ms: int | None = None,
        facts_logged: str | None = None,
    ) -> Decision:
        """Decides a call. Append its frames, wait until they are durable, and only then run the tool or answer.

        A call that is malformed raises. A call on which the module traps is denied: by a new instance that is told the
        enrollment is unavailable, so that it is written down; or else with `audit: wal_unavailable` and no frames.
        """
        call = Call(tool, policy, policy_ref, policy_detail, audit_id, now_ms, facts_logged)
        audit_id, document = _document(call)
        with self._lock:
            return self._decide(document, audit_id)

    def decide_batch(self, calls: Iterable[Call]) -> list[Decision | MalformedError]:
        """Decides many calls as `decide` would; a malformed one gives an error in its place."""
        documents = [_document(call) for call in calls]
        decisions: list[Decision | MalformedError] = []
        for at in range(0, len(documents), BATCH_CALLS):
            with self._lock:
                decisions += self._decide_some(documents[at : at + BATCH_CALLS])
        return decisions

    def explain(self, now_ms: float | None = None) -> Explanation:
        """Every sub-check at a time, with what it expected and found. Writes nothing down."""
        at = float(clock_ms() if now_ms is None else now_ms)
        with self._lock:
            document = json.loads(self._guarded("explained", lambda instance: instance.explain(at)))
        checks = ((c["reason"], c["outcome"], c["expected"], c["found"]) for c in document["sub_checks"])
        return Explanation(
            verdict=cast(Verdict, VERDICTS[document["verdict"]]),
            facts_id=document["facts_id"],
            facts=document["facts"],
            sub_checks=tuple(SubCheck(Reason(reason), *rest) for reason, *rest in checks),
        )

    def forked(self) -> None:
        """A process that forked while another thread was in the gate has what that thread left behind."""
        self._lock = Lock()
        self._instance = None

    def _decide(self, document: bytes, audit_id: str) -> Decision:
        try:
            return self._use(lambda instance: _decision(*instance.decide(document), audit_id))
        except GateError:
            raise
        except Exception as trap:  # noqa: BLE001 - a trap of any kind
            return self._decide_trapped(document, audit_id, trap)

    def _decide_trapped(self, document: bytes, audit_id: str, trap: Exception) -> Decision:
        """The same call by a new instance, so that the denial is written down."""
        try:
            instance = self._renew()
            unavailable = {"answer": "unavailable", "why": f"the gate trapped: {line(trap)}"}
            instance.set_enrollment(compact(unavailable).encode())
            decision = _decision(*instance.decide(document), audit_id)
            self._tell_enrollment(instance)
            self._instance = instance
        except Exception:  # noqa: BLE001 - a trap of any kind
            return _unrecordable(audit_id)
        # A mode that lets it through must not let a call run on which the module trapped.
        return _unrecordable(audit_id) if decision.allowed else decision

    def _decide_some(self, documents: Sequence[tuple[str, bytes]]) -> list[Decision | MalformedError]:
        def decide(instance: Instance) -> list[Decision | MalformedError]:
            count, output = instance.decide_batch(b"\n".join(document for _, document in documents))
            lines = output.decode().removesuffix("\n").split("\n")
            if not count == len(lines) == len(documents):
                raise RuntimeError(f"gate_decide_batch gave `{count}` lines for `{len(documents)}` calls")
            return [_answer(said, audit_id) for said, (audit_id, _) in zip(lines, documents, strict=True)]

        try:
            return self._use(decide)
        except GateError:
            raise
        except Exception:  # noqa: BLE001 - a trap of any kind
            # One of them is to blame: alone, each is answered for itself.
            return [self._decide_alone(document, audit_id) for audit_id, document in documents]

    def _decide_alone(self, document: bytes, audit_id: str) -> Decision | MalformedError:
        try:
            return self._decide(document, audit_id)
        except MalformedError as error:
            return error

    def _guarded(self, doing: str, call: Callable[[Instance], T]) -> T:
        try:
            return self._use(call)
        except GateError:
            raise
        except Exception as trap:
            raise TrappedError(f"the gate trapped while it {doing}: {line(trap)}") from trap

    def _use(self, call: Callable[[Instance], T]) -> T:
        """Gives the instance to a call.

        It is gone after a trap, and after a `KeyboardInterrupt` or the like in the midst of nobody knows what.
        """
        instance = self._renew() if self._instance is None else self._instance
        self._instance = None
        try:
            result = call(instance)
        except GateError:
            self._instance = instance
            raise
        self._instance = instance
        return result

    def _renew(self) -> Instance:
        """A new instance, told all that the one before it was told."""
        instance = Instance(self._module, self._configuration)
        tar, _ = self._loaded
        if tar is not None:
            _again(lambda: instance.load_bundle(tar))
        if self._lease is not None:
            # It raises the serial below which others are refused.
            lease = self._lease
            _again(lambda: _tell(instance, lease))
        self._tell_enrollment(instance)
        return instance

    def _tell_enrollment(self, instance: Instance) -> None:
        if self._enrollment is not None:
            told = self._enrollment
            _again(lambda: _tell(instance, told))


def settled(answer: Answer) -> Settled:
    """An answer as it was given."""
    return Lease(json_of(answer.envelope)) if isinstance(answer, Lease) else json_of(answer)


def json_of(document: object) -> bytes:
    """A document as JSON. What is none becomes one that the gate refuses."""
    if isinstance(document, bytes):
        return document
    if isinstance(document, str):
        return document.encode(errors="surrogatepass")
    try:
        return compact(document).encode()
    except Exception:  # noqa: BLE001 - somebody else's code may be in it, or another thread that changes it
        return b"null"


def _tell(instance: Instance, told: Settled) -> None:
    if isinstance(told, Lease):
        instance.set_lease(json_of(told.envelope))
    else:
        instance.set_enrollment(told)


def _again(tell: Callable[[], object]) -> None:
    """What was refused before is refused again, and leaves the same facts."""
    try:
        tell()
    except GateError:
        return


def _list(keys: str | Sequence[str]) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _document(call: Call) -> tuple[str, bytes]:
    """The call's audit id, and the call as the module takes it."""
    now_ms = clock_ms() if call.now_ms is None else call.now_ms
    audit_id = new_audit_id() if call.audit_id is None else call.audit_id
    document: dict[str, str | int] = {
        "now_ms": now_ms,
        "audit_id": audit_id,
        "tool": call.tool,
        "policy": call.policy,
    }
    if call.policy_ref is not None:
        document["policy_ref"] = call.policy_ref
    if call.policy_detail is not None:
        document["policy_detail"] = call.policy_detail
    if call.facts_logged is not None:
        document["facts_logged"] = call.facts_logged
    return audit_id, compact(document).encode()


def _answer(said: str, audit_id: str) -> Decision | MalformedError:
    if said.startswith('{"error":'):
        return MalformedError(json.loads(said)["error"])
    return _decision(None, said, audit_id)


def _decision(number: int | None, said: str, audit_id: str) -> Decision:
    """Reads all of a decision but its frames: they go to the log as the text that they are."""
    # What stands before is an effect, a digest and two reasons: none can hold this text.
    head, found, frames = said.partition(',"frames":')
    if not found:
        raise RuntimeError("the module gave a decision without frames")
    document = json.loads(head + "}")
    reason = EFFECTS[document["reason"]]
    if (document["effect"] == "allow") != (reason is None) or number not in (
        None,
        0 if reason is None else reason.number,
    ):
        raise RuntimeError(f"gate_decide gave `{number}` and says `{head}`")
    return Decision(
        document["effect"],
        reason,
        VERDICTS[document["verdict"]],
        document["facts"],
        Frames(frames[:-1]),
        audit_id,
    )


def _unrecordable(audit_id: str) -> Decision:
    """A denial that no instance could put into frames."""
    return Decision("deny", Reason.WAL_UNAVAILABLE, None, None, Frames("[]"), audit_id)


def _bundle(said: bytes, tar: bytes) -> Bundle:
    document = json.loads(said)
    view = memoryview(tar)
    files = tuple(
        BundleFile(file["path"], file["digest"], file["offset"], view[file["offset"] : file["offset"] + file["size"]])
        for file in document["files"]
    )
    return Bundle(
        digest=document["digest"],
        name=document["name"],
        version=document["version"],
        channel=document["channel"],
        policy_version=document["policy_version"],
        schema_version=document["schema_version"],
        policy_ref=document["policy_ref"],
        enrollment_ref=document["enrollment_ref"],
        files=files,
        signers=tuple(document["signers"]),
    )
