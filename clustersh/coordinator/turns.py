"""Whose request is served next, where more came in than one turn of the reactor should take.

Without it a client that writes thousands of requests at once, down one connection or many, has them all served
before anybody else is even read.
"""

from __future__ import annotations

from typing import Any, Protocol

from .fair_queue import FairQueue

AT_ONCE = 4
"""Requests that are served in one turn of the reactor: a few milliseconds."""


LINKS = "links"
"""All agents that come, as one source: when thousands come back at once, others wait for one of them at a time."""


class Waiter(Protocol):
    """A connection whose next request is in."""

    def serve(self) -> None:
        """Serve that request."""


class Turns:
    """Serves a few requests at once, and has the rest wait: the sources (whoever sends them) take turns, one each."""

    def __init__(self, reactor: Any, at_once: int = AT_ONCE) -> None:
        self._reactor = reactor
        self._at_once = self._left = at_once
        self._waiting: FairQueue[Waiter] = FairQueue()
        self._counting = False

    def take(self, source: str, waiter: Waiter) -> None:
        """Have *waiter* serve its request, which is *source*'s: now, or when its turn comes."""
        if not self._counting:
            self._counting = True
            self._reactor.callLater(0, self._next_turn)
        if self._left and not self._waiting:
            self._left -= 1
            waiter.serve()
            return
        self._waiting.put(source, waiter)

    def leave(self, waiter: Waiter) -> None:
        """The connection is gone: nothing of it is to be served."""
        self._waiting.remove(waiter)

    def _next_turn(self) -> None:
        self._left, self._counting = self._at_once, bool(self._waiting)
        if self._waiting:
            self._reactor.callLater(0, self._next_turn)
        while self._left and (waiter := self._waiting.take()) is not None:
            self._left -= 1
            waiter.serve()
