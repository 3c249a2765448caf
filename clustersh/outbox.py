"""What a link sends: a message that nobody waits for goes with the next one, or in a moment without one."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .wire.link import Acknowledge, FromAgent, FromCoordinator, Started

WAIT_S = 0.025
"""Seconds that such a message may wait: most jobs that are short end in them, or are followed by another."""
MAX_WAITING = 100

Message = FromAgent | FromCoordinator
_PATIENT = (Acknowledge, Started)


class Outbox:
    """Hands messages to *send* in their order, those that may wait together with the one after them.

    What goes out together is one piece of TLS for the network and one awakening for the other side. A job's start is
    confirmed within ten seconds, and its end reported until it is acknowledged: neither needs a piece of its own.
    """

    def __init__(self, clock: IReactorTime, send: Callable[[Message], None]) -> None:
        self._clock = clock
        self._send = send
        self._waiting: list[Message] = []
        self._timer: IDelayedCall | None = None

    def put(self, message: Message) -> None:
        """Send *message*, now or in a moment."""
        self._waiting.append(message)
        if not isinstance(message, _PATIENT) or len(self._waiting) >= MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(WAIT_S, self._time_is_up)

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._send(message)

    def close(self) -> None:
        """Drop what waits: the link is gone."""
        self._waiting = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        self.flush()
