"""Waiting that its caller can end: by a clock (``--wait``) or a signal. The job goes on."""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..cli.invocation import Signals

T = TypeVar("T")


class Why(enum.Enum):
    """Why the waiting ended before the job did."""

    WAIT_OVER = "wait over"
    SIGNAL = "signal"
    INTERRUPTED = "interrupted again"


class Left(Exception):
    """The waiting is over, the job isn't."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class Watch:
    """Awaits work until it is done or its caller wants to leave.

    The first SIGINT calls *interrupted* (which cancels the remote command), a second one leaves, as SIGTERM and SIGHUP
    do, and *wait_s* seconds (None: never).
    """

    def __init__(
        self, reactor: Any, signals: Signals, *, wait_s: float | None, interrupted: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._signals = signals
        self._wait_s = wait_s
        self._interrupted = interrupted
        self._interrupts = 0
        self._finished: Deferred[Any] = Deferred()

    async def over(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of *work*. Raises what it raises, or Left; *work* is cancelled then."""
        task = Deferred.fromCoroutine(work)
        task.addBoth(self._finish)
        timer = None
        if self._wait_s is not None:
            timer = self._reactor.callLater(self._wait_s, self._leave, Why.WAIT_OVER)
        before, self._signals.handler = self._signals.handler, self._signalled
        try:
            result: T = await self._finished
            return result
        finally:
            self._signals.handler = before
            if timer is not None and timer.active():
                timer.cancel()
            task.cancel()

    def beside(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Do *work* too; what it raises ends the waiting."""
        return Deferred.fromCoroutine(work).addErrback(self._failed)

    def _finish(self, result: Any) -> None:
        if not self._finished.called:
            self._finished.callback(result)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._finish(failure)

    def _leave(self, why: Why) -> None:
        self._finish(Failure(Left(why)))

    def _signalled(self, number: int) -> None:
        if number != signal.SIGINT:
            self._leave(Why.SIGNAL)
        elif self._interrupts:
            self._leave(Why.INTERRUPTED)
        else:
            self._interrupts += 1
            self._interrupted()
