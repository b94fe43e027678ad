"""Decides whether a tool may run on a node now: policy, signed bundle, enrollment.

`Gate` decides, in the process and without I/O. `Guard` and `AsyncGuard` stand before tools: they look up the enrollment,
have the gate decide, have the decision written down, and give a `Permit`. `NativeHost` and `AsyncNativeHost` answer
look-ups and take frames on a node. The middlewares put a guard before a web application.
"""

from .audit import new_audit_id
from .documents import (
    Answer,
    Bundle,
    BundleFile,
    Call,
    Decision,
    Enrolled,
    Enrollment,
    Explanation,
    Frames,
    Info,
    Lease,
    Mode,
    NotEnrolled,
    Outcome,
    SubCheck,
    Unavailable,
    Verdict,
)
from .errors import (
    Denied,
    FactsNotLoggedError,
    GateError,
    MalformedError,
    RefusedError,
    TrappedError,
    UnsupportedError,
)
from .exchange import HostError
from .gate import Gate
from .guard import (
    AsyncDecisionSink,
    AsyncEnrollmentSource,
    AsyncGuard,
    AsyncPermit,
    AsyncPolicy,
    DecisionSink,
    EnrollmentSource,
    Guard,
    Permit,
    Policy,
)
from .memory_host import AsyncMemoryHost, MemoryHost
from .middleware import PERMIT, GateASGIMiddleware, GateWSGIMiddleware
from .native_host import AsyncNativeHost, NativeHost
from .protocol import PolicyAnswer, ToolCall
from .reasons import REASONS, REASONS_DIGEST, AttestationReason, AuditReason, PolicyReason, Reason

__all__ = [
    "PERMIT",
    "REASONS",
    "REASONS_DIGEST",
    "Answer",
    "AsyncDecisionSink",
    "AsyncEnrollmentSource",
    "AsyncGuard",
    "AsyncMemoryHost",
    "AsyncNativeHost",
    "AsyncPermit",
    "AsyncPolicy",
    "AttestationReason",
    "AuditReason",
    "Bundle",
    "BundleFile",
    "Call",
    "Decision",
    "DecisionSink",
    "Denied",
    "Enrolled",
    "Enrollment",
    "EnrollmentSource",
    "Explanation",
    "FactsNotLoggedError",
    "Frames",
    "Gate",
    "GateASGIMiddleware",
    "GateError",
    "GateWSGIMiddleware",
    "Guard",
    "HostError",
    "Info",
    "Lease",
    "MalformedError",
    "MemoryHost",
    "Mode",
    "NativeHost",
    "NotEnrolled",
    "Outcome",
    "Permit",
    "Policy",
    "PolicyAnswer",
    "PolicyReason",
    "Reason",
    "RefusedError",
    "SubCheck",
    "ToolCall",
    "TrappedError",
    "Unavailable",
    "UnsupportedError",
    "Verdict",
    "new_audit_id",
]
