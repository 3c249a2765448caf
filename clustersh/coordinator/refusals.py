"""Refused callers: the first of a kind is told at once, a flood becomes one summary a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

SUMMARY_S = 60.0
"""Seconds in which the same refusal is told once; then its repetitions are, as a count."""
MAX_KINDS = 32
"""Refusals told one by one in that time; those that come after only count."""
MANY = "many addresses"


class Refusal(NamedTuple):
    """*times* callers from *address* (or MANY) were refused for *reason*; *again* says that it was told before."""

    address: str
    reason: str
    times: int
    again: bool


class Refusals:
    """Counts refused callers, and hands *report* what is worth writing down."""

    def __init__(self, clock: IReactorTime, report: Callable[[Refusal], None] | None = None) -> None:
        self._clock = clock
        self._report = report or log_refusal
        self._told: set[tuple[str, str]] = set()
        self._repeated: Counter[tuple[str, str]] = Counter()
        self._summary: IDelayedCall | None = None

    def note(self, address: str, reason: str) -> None:
        """A caller from *address* was refused for *reason*, one of few (no text of the caller's)."""
        if self._summary is None:
            self._summary = self._clock.callLater(SUMMARY_S, self._summarize)
        kind = (address, reason)
        if kind in self._told:
            self._repeated[kind] += 1
        elif len(self._told) < MAX_KINDS:
            self._told.add(kind)
            self._report(Refusal(address, reason, 1, again=False))
        else:
            self._repeated[MANY, reason] += 1

    def stop(self) -> None:
        """Tell what is left to tell, and wait no more."""
        if self._summary is not None:
            self._summary.cancel()
            self._summarize()

    def _summarize(self) -> None:
        repeated, self._repeated = self._repeated, Counter()
        self._summary = None
        self._told.clear()
        for (address, reason), count in repeated.items():
            self._report(Refusal(address, reason, count, again=True))


def log_refusal(refusal: Refusal) -> None:
    """Write *refusal* to the log."""
    message = "refused {address}: {reason}"
    if refusal.again:
        message += " ({times} times more within a minute)"
    Logger().warn(message, address=refusal.address, reason=refusal.reason, times=refusal.times)
