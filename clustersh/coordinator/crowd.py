"""How many connections may be open: of one source, so that it can't keep the others out, and in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from .addresses import plain_address
from .limits import source_of

MAX_EACH = 2000
MAX_ALL = 10_000
KEPT_FILES = 128
"""Files that the service itself may need at a time; connections leave it so many."""


class Transport(Protocol):
    """A connection, as Twisted has it."""

    connected: int


class Crowd:
    """The connections that are open: at most *each* of one source (see `source_of`) and *all* together.

    *complain* is told of an address and why it was turned away.
    """

    def __init__(
        self, complain: Callable[[str, str], None] = lambda address, reason: None, *, all_: int = MAX_ALL, each: int = 0
    ) -> None:
        self._complain = complain
        self._all = all_
        self._each = each or min(MAX_EACH, max(1, all_ // 2))
        self._of: dict[str, WeakSet[Transport]] = {}
        self._everyone: WeakSet[Transport] = WeakSet()

    def enter(self, transport: Transport, host: str) -> bool:
        """Count *transport*, which came from *host*; False where there is no room for it."""
        source = source_of(plain_address(host))
        if len(self._of) > self._all:
            self._sweep()
        there = self._of.setdefault(source, WeakSet())
        if len(there) >= self._each and _open(there) >= self._each:
            self._complain(host, "too many connections from there")
            return False
        if len(self._everyone) >= self._all and self._sweep() >= self._all:
            self._complain(host, "too many connections")
            return False
        there.add(transport)
        self._everyone.add(transport)
        return True

    def _sweep(self) -> int:
        """Forget what was closed, and return how many are left."""
        for source, there in list(self._of.items()):
            if not _open(there):
                del self._of[source]
        return _open(self._everyone)


def _open(there: WeakSet[Transport]) -> int:
    for transport in list(there):
        if not transport.connected:
            there.discard(transport)
    return len(there)


def allow_many_files() -> int:
    """Raise this process's own limit of open files as far as it may, and return how many connections that leaves."""
    try:
        import resource
    except ImportError:  # Windows: no such limit
        return MAX_ALL
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_ALL + KEPT_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_ALL if soft == resource.RLIM_INFINITY else max(1, min(MAX_ALL, soft - KEPT_FILES))
