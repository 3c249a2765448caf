"""Waiting for something to change, with a limit, and without a trace of those who gave up."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Signal:
    """Wakes everyone that waits, each time it is fired."""

    def __init__(self) -> None:
        self._waiting: set[Deferred[None]] = set()

    def fire(self) -> None:
        """Wake all that wait now."""
        for waiter in list(self._waiting):
            self._wake(waiter)

    async def wait(self, clock: IReactorTime, seconds: float) -> None:
        """Return at the next fire(), or after *seconds*; it may be cancelled."""
        waiter: Deferred[None] = Deferred()
        self._waiting.add(waiter)
        limit = clock.callLater(seconds, self._wake, waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
            if limit.active():
                limit.cancel()

    def _wake(self, waiter: Deferred[None]) -> None:
        if not waiter.called:
            waiter.callback(None)


async def wait_until(clock: IReactorTime, signal: Signal, condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until *condition* holds, which *signal* tells of, but at most *seconds*; return whether it holds."""
    deadline = clock.seconds() + seconds
    while not condition():
        left = deadline - clock.seconds()
        if left <= 0:
            return False
        await signal.wait(clock, left)
    return True
