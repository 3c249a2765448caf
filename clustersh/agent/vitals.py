"""Tells the coordinator how this machine does: now and then, and when asked."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..wire.link import VITALS_S, AskVitals, Failed, FromAgent, Vitals, VitalsReport
from ..wire.problems import Kind

FIRST_S = 3.0
"""Seconds after the link came up in which the first report is due."""
JITTER = 0.1
"""The part of VITALS_S by which reports come earlier or later: agents that came together drift apart."""


class Reporter:
    """Reports over one link, through *send*, what *measure* finds (None: nothing can be told)."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        measure: Callable[[], Awaitable[Vitals | None]],
        send: Callable[[FromAgent], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._measure = measure
        self._send = send
        self._uniform = uniform
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """The link is up."""
        if self._next is None:
            self._next = self._clock.callLater(self._uniform(0.0, FIRST_S), self._report)

    def stop(self) -> None:
        """The link is gone."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def asked(self, message: AskVitals) -> None:
        """Answer at once."""
        self._tell(message.request)

    def _report(self) -> None:
        after = VITALS_S * self._uniform(1 - JITTER, 1 + JITTER)
        self._next = self._clock.callLater(after, self._report)
        self._tell(0)

    def _tell(self, request: int) -> None:
        Deferred.fromCoroutine(self._measured(request)).addErrback(self._failed)

    async def _measured(self, request: int) -> None:
        vitals = await self._measure()
        if vitals is not None:
            self._send(VitalsReport(vitals, request))
        elif request:
            self._send(Failed(request, Kind.UNAVAILABLE.value, "this machine does not tell how it does"))

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the vitals can't be told", failure)
