"""How the machines do: what each said last, by the coordinator's clock, and what it says when asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as WaitedEnough
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..wire.link import AskVitals, Vitals
from ..wire.problems import ProblemError
from .bus import Answer, Bus

ASK_S = 2.0
"""Seconds that a machine has to answer; of one that doesn't, the last is told."""
FRESH_S = 1.0
"""What is younger is not asked for again; of many machines also what is older, see ASKS_PER_S."""
ASKS_PER_S = 500
"""Machines that one who asks again and again has asked in a second: more would take much of a processor."""
KEEP_S = 600.0
"""What is older says nothing any more."""
ASK_AT_ONCE = 200
"""Machines asked in one turn of the reactor."""


class Known(NamedTuple):
    """What a machine said last, and how long ago."""

    vitals: Vitals
    age_s: float


class VitalsBook:
    """Keeps what the machines of *bus* say. *running* counts the jobs that run on each, as the coordinator knows."""

    def __init__(self, timer: IReactorTime, bus: Bus, running: Callable[[], Mapping[str, int]]) -> None:
        self._timer = timer
        self._bus = bus
        self._running = running
        self._said: dict[str, tuple[float, Vitals]] = {}
        self._asked: dict[str, list[Deferred[None]]] = {}

    def said(self, machine_id: str, vitals: Vitals) -> None:
        """A machine told how it does."""
        self._said[machine_id] = self._timer.seconds(), vitals

    def forget(self, machine_id: str) -> None:
        """There is no such machine any more."""
        self._said.pop(machine_id, None)

    def known(self, machine_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is known of those machines. They can't run fewer jobs than the coordinator knows of."""
        running, now = self._running(), self._timer.seconds()
        found: dict[str, Known] = {}
        for machine_id in machine_ids:
            at, vitals = self._said.get(machine_id, (0.0, None))
            if vitals is not None and now - at <= KEEP_S:
                jobs = max(vitals.jobs, running.get(machine_id, 0))
                found[machine_id] = Known(msgspec.structs.replace(vitals, jobs=jobs), now - at)
        return found

    async def refresh(self, machine_ids: Collection[str]) -> None:
        """Ask those that are online, unless they told a moment ago; it takes ASK_S and a little at most."""
        fresh_s = max(FRESH_S, len(machine_ids) / ASKS_PER_S)
        asked = [machine_id for machine_id in machine_ids if self._is_worth_asking(machine_id, fresh_s)]
        waiting: list[Deferred[None]] = []
        for first in range(0, len(asked), ASK_AT_ONCE):
            if first:
                await deferLater(self._timer, 0.0)
            waiting += [self._ask(machine_id) for machine_id in asked[first : first + ASK_AT_ONCE]]
        await DeferredList(waiting, consumeErrors=True)

    def _is_worth_asking(self, machine_id: str, fresh_s: float) -> bool:
        at, _ = self._said.get(machine_id, (float("-inf"), None))
        return self._bus.epoch(machine_id) is not None and self._timer.seconds() - at > fresh_s

    def _ask(self, machine_id: str) -> Deferred[None]:
        """Ask one machine, for all who want to know; fires when it answered, or will not."""
        told: Deferred[None] = Deferred()
        waiting = self._asked.get(machine_id)
        if waiting is not None:
            waiting.append(told)
            return told
        try:
            answer = self._bus.ask(machine_id, AskVitals)
        except ProblemError:  # it went offline, or has too much to answer already
            told.callback(None)
            return told
        self._asked[machine_id] = [told]
        answer.addTimeout(ASK_S, self._timer)
        answer.addErrback(_no_answer).addBoth(self._over, machine_id)
        return told

    def _over(self, _: Answer | None, machine_id: str) -> None:
        for told in self._asked.pop(machine_id):
            if not told.called:
                told.callback(None)


def _no_answer(failure: Failure) -> None:
    failure.trap(ProblemError, WaitedEnough, CancelledError)
