"""How a run goes through its machines in batches: which come next, or that it goes no further.

A plain object a run: it is told what happened and says what to do. It keeps no time and sends nothing; paced_runs.py
does what it says. ::

    canary -> a batch -> a batch ...    each once the one before is over, unless too many have failed by then

A batch is over when nothing of it is known to run: each of its jobs has ended, or is *in doubt* (its start was not
acknowledged, or its machine is away for long). What is in doubt counts as failed, until it turns up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ..wire.fleet import Pace


@dataclass(frozen=True)
class Begin:
    """These machines are the next batch."""

    machines: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """Too many of the *begun* machines have *failed*: no other is begun."""

    failed: tuple[str, ...]
    begun: int


class Pacing:
    """One run's way through *machines*, in that order. What happens of each takes the same time for any number."""

    def __init__(self, machines: Sequence[str], pace: Pace) -> None:
        self._canary = pace.canary
        self._size = batch_size(pace.rolling, len(machines))
        self._allowed = allowed_failures(pace.max_failures, len(machines))
        self._left = dict.fromkeys(machines)
        self._begun = 0
        self._open: set[str] = set()
        """Begun, and not ended."""
        self._doubted: set[str] = set()
        """Those of them that are in doubt."""
        self._failed: dict[str, None] = {}
        self._stopped = False

    @property
    def over(self) -> bool:
        """Whether there is nothing more to begin."""
        return self._stopped or not self._left

    @property
    def left(self) -> tuple[str, ...]:
        """The machines that have not begun."""
        return tuple(self._left)

    @property
    def open(self) -> frozenset[str]:
        """The machines that have begun, and not ended."""
        return frozenset(self._open)

    def next(self) -> Begin | Stop | None:
        """Return what is to be done now; None: nothing, before something happens."""
        if self.over or len(self._open) > len(self._doubted):
            return None
        if len(self._failed) + len(self._doubted) > self._allowed:
            return Stop((*self._failed, *sorted(self._doubted)), self._begun)
        size = self._canary if self._canary and not self._begun else self._size
        return Begin(tuple(islice(self._left, size)))

    def begun(self, machines: Iterable[str]) -> None:
        """The batch of these *machines* was recorded: from now on they may run."""
        for machine in machines:
            if machine in self._left:
                del self._left[machine]
                self._begun += 1
                self._open.add(machine)

    def ended(self, machine: str, *, completed: bool) -> None:
        """A job has its outcome; one that ends before it has begun has not failed, and is never begun."""
        if machine in self._left:
            del self._left[machine]
        elif machine in self._open:
            self._open.discard(machine)
            self._doubted.discard(machine)
            if not completed:
                self._failed[machine] = None

    def doubt(self, machines: Iterable[str]) -> None:
        """Exactly these of the open jobs are in doubt now."""
        self._doubted = self._open.intersection(machines)

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stopped = True


def widest(machines: int, pace: Pace | None) -> int:
    """Return how many of *machines* a run is on at once, at most."""
    if pace is None:
        return machines
    canary = min(pace.canary, machines)
    return max(canary, min(batch_size(pace.rolling, machines), machines - canary))


def batch_size(rolling: str, machines: int) -> int:
    """Return how many of *machines* a batch takes: a part is rounded up, and "" is all of them."""
    if not rolling:
        return max(1, machines)
    if rolling.endswith("%"):
        return max(1, -(-int(rolling[:-1]) * machines // 100))
    return int(rolling)


def allowed_failures(max_failures: str, machines: int) -> int:
    """Return how many of *machines* may fail before it stops: a part is rounded down, and "" is none."""
    if max_failures.endswith("%"):
        return int(max_failures[:-1]) * machines // 100
    return int(max_failures or 0)


def batches(machines: Sequence[str], pace: Pace | None) -> list[tuple[str, ...]]:
    """Return the batches in which a run goes through *machines* where nothing fails; without a *pace* it is one."""
    if pace is None:
        return [tuple(machines)]
    pacing, found = Pacing(machines, pace), list[tuple[str, ...]]()
    while isinstance(step := pacing.next(), Begin):
        found.append(step.machines)
        pacing.begun(step.machines)
        for machine in step.machines:
            pacing.ended(machine, completed=True)
    return found
