"""Audit ids."""

from __future__ import annotations

import os
import time


def new_audit_id(now_ms: int | None = None) -> str:
    """A new audit id: a UUID of version 7, which sorts by the time it was made at."""
    at = clock_ms() if now_ms is None else now_ms
    value = (at & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
