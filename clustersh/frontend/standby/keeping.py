"""The standby's way to the coordinator, kept open while nobody uses it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...cli.invocation import Kept

ASK_EVERY_S = 20.0
"""Seconds between questions to the coordinator: routers forget connections that are silent for minutes, the coordinator
closes them after five, and one that leads nowhere is replaced before somebody needs it."""


class Keeper:
    """Keeps one connection of *kept* alive. A coordinator that is away is asked again and again, and that is all."""

    def __init__(self, reactor: IReactorTime, kept: Kept) -> None:
        self._reactor = reactor
        self._kept = kept
        self._asked = reactor.seconds()
        self._asking = False

    def look(self) -> None:
        """Ask, if it is time; called now and then, as the standby wakes up anyway."""
        now = self._reactor.seconds()
        if self._asking or self._kept.rest is None or now - self._asked < ASK_EVERY_S:
            return
        self._asked, self._asking = now, True
        asking = Deferred.fromCoroutine(self._kept.rest.keep_open())
        asking.addErrback(lambda _: None).addBoth(self._done)

    def _done(self, _: None) -> None:
        self._asking = False
