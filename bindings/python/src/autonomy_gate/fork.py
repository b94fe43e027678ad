"""What becomes of a lock in a process that forked: the thread that held it is not there to let it go."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forks(Protocol):
    """Something with a lock."""

    def forked(self) -> None:
        """Has the lock free, in a process that has this thread alone."""


_alive: Final[WeakSet[Forks]] = WeakSet()


def told_of_forks(one: Forks) -> None:
    """Has `forked` called in each process that forks from this one."""
    _alive.add(one)


def _forked() -> None:
    for one in list(_alive):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
