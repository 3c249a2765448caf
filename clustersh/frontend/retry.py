"""Asking again where an answer got lost: only for requests that carry a key or may be repeated."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.task import deferLater

from ..rest_client import Cause, Unreachable
from ..wire.problems import Kind, ProblemError

T = TypeVar("T")
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 2.0
_HOPELESS = (Cause.IMPOSTOR, Cause.NOT_ACCEPTED, Cause.NO_COORDINATOR)


class GaveUp(Exception):
    """No answer came for as long as we were to try; *failure* is the last one, *for_s* how long."""

    def __init__(self, failure: Exception, for_s: float) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.for_s = for_s


class Retry:
    """Repeats what failed for want of an answer, with jittered back-off, for *for_s* seconds since the last answer.

    A coordinator that can't be reached at all is told at once, until something has reached it. *unanswered* says that
    a request was sent whose answer never came.
    """

    def __init__(
        self,
        reactor: Any,
        for_s: float,
        uniform: Callable[[float, float], float] = random.uniform,
        *,
        unanswered: bool = False,
    ) -> None:
        self._reactor = reactor
        self._for_s = for_s
        self._uniform = uniform
        self._contacted = unanswered
        self.unanswered = unanswered

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what *attempt* does. Raises GaveUp, and Unreachable where nothing ever reached the coordinator."""
        since: float | None = None
        delay = FIRST_DELAY_S
        while True:
            try:
                answer = await attempt()
            except Unreachable as unreachable:
                if not unreachable.sent and not self._contacted:
                    raise
                self.unanswered = self.unanswered or unreachable.sent
                if unreachable.cause in _HOPELESS:
                    raise GaveUp(unreachable, 0.0) from unreachable
                failure: Exception = unreachable
            except ProblemError as problem:
                self._contacted = True
                if problem.problem.kind is not Kind.UNAVAILABLE:
                    raise
                failure = problem
            else:
                self._contacted, self.unanswered = True, False
                return answer
            self._contacted = True
            now = self._reactor.seconds()
            since = now if since is None else since
            if now - since >= self._for_s:
                raise GaveUp(failure, self._for_s)
            await self.pause(delay)
            delay = min(2 * delay, MAX_DELAY_S)

    async def pause(self, at_most: float = FIRST_DELAY_S) -> None:
        """Wait a little, so that nothing is asked in a tight loop."""
        await deferLater(self._reactor, self._uniform(at_most / 2, at_most), lambda: None)
