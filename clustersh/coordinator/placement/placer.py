"""Chooses machines for the runs that leave it to the coordinator, and keeps in mind what it has just placed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...wire.fleet import Placement
from ...wire.link import Vitals
from ...wire.problems import Kind, ProblemError
from ..registry import Key
from . import Candidate
from .policies import Policies
from .scores import STALE_S

RECORDED_WITHIN_S = 10.0
"""Seconds after which a run that was placed and that nobody knows of did not come about."""


class Sight(Protocol):
    """What the coordinator itself sees of a machine."""

    def status(self, machine_id: str) -> str:
        """Return online, reconnecting, offline or unreachable."""

    def vitals(self, machine_ids: Iterable[str]) -> Mapping[str, tuple[Vitals, float]]:
        """Return what those machines last said of themselves, and how many seconds ago; not of those that did not."""

    def cpus(self, machine_id: str) -> int:
        """Return how many processors it says it has."""

    def running(self, machine_id: str) -> int:
        """Return how many jobs were sent there and have not ended."""

    def under_way(self, uuid: str, machine_id: str) -> bool | None:
        """Whether that job is under way; None where nobody knows of it (yet, or any more)."""


class Placed(NamedTuple):
    """The chosen *machines*, in the order in which they were given, and *words* that say why, the best one first."""

    machines: tuple[Key, ...]
    words: tuple[str, ...]


class _Placing(NamedTuple):
    """When a run was placed, and the number of that."""

    when: float
    number: int


@dataclass
class _Book:
    """What was placed on one machine: the *recent* runs, by their uuids, and the number of the last *earlier* one."""

    recent: dict[str, _Placing] = field(default_factory=dict)
    earlier: int = 0

    @property
    def last(self) -> int:
        """The number of the machine's last placement; 0 where it has had none."""
        return max((self.earlier, *(each.number for each in self.recent.values())))

    def settle(self, uuid: str) -> None:
        """That run is a recent one no more."""
        self.earlier = max(self.earlier, self.recent.pop(uuid).number)


class Placer:
    """Places runs. *clock* gives seconds that never jump."""

    def __init__(self, policies: Policies, sight: Sight, clock: Callable[[], float]) -> None:
        self._policies = policies
        self._sight = sight
        self._clock = clock
        self._books: dict[str, _Book] = {}
        self._making: dict[str, tuple[Key, ...]] = {}
        """The runs that are being made, and where they were placed."""
        self._numbers = itertools.count(1)

    def place(self, uuid: str, machines: Sequence[Key], placement: Placement) -> Placed:
        """Choose as `choose` does, and count the run in from now on, until it shows in the machines' own vitals."""
        placed = self.choose(machines, placement)
        now = self._clock()
        for machine in placed.machines:
            book = self._books.setdefault(machine.id, _Book())
            book.recent[uuid] = _Placing(now, next(self._numbers))
        if uuid in self._making:
            self._making[uuid] = placed.machines
        return placed

    @contextmanager
    def making(self, uuid: str) -> Iterator[None]:
        """Make the run *uuid* meanwhile: where that fails it counts as if it had not been placed."""
        self._making[uuid] = ()
        try:
            yield
        except BaseException:
            for machine in self._making[uuid]:
                if (book := self._books.get(machine.id)) is not None:
                    book.recent.pop(uuid, None)
            raise
        finally:
            del self._making[uuid]

    def choose(self, machines: Sequence[Key], placement: Placement) -> Placed:
        """Return which of *machines* are the ones for that placement now. Raises ProblemError."""
        self._policies.check(placement.policy)
        candidates = self._candidates(machines, placement.pick)
        choices = self._policies.choose(placement.policy, candidates, placement.pick)
        names = {machine.id: machine.name for machine in machines}
        chosen = {choice.id for choice in choices}
        return Placed(
            tuple(machine for machine in machines if machine.id in chosen),
            tuple(f"Selected {names[choice.id]}: {choice.why}" for choice in choices),
        )

    def forget(self, machine_id: str) -> None:
        """The machine is one of the cluster no more."""
        self._books.pop(machine_id, None)

    def _candidates(self, machines: Sequence[Key], pick: int) -> list[Candidate]:
        """Return the machines that are online, and where these are too few those that are expected back."""
        known = [machine for machine in machines if not machine.new]
        online = [machine for machine in known if self._sight.status(machine.id) == "online"]
        there = online
        if len(online) < pick:
            there = [machine for machine in known if self._sight.status(machine.id) in ("online", "reconnecting")]
        if len(there) < pick:
            raise _too_few(machines, there, pick)
        said = self._sight.vitals(machine.id for machine in there)
        return [self._candidate(machine, *said.get(machine.id, (None, None))) for machine in there]

    def _candidate(self, machine: Key, vitals: Vitals | None, age_s: float | None) -> Candidate:
        book = self._books.get(machine.id) or _Book()
        known = self._recent(machine.id, book, age_s)
        return Candidate(
            name=machine.name,
            id=machine.id,
            vitals=vitals,
            age_s=age_s,
            cpus=self._sight.cpus(machine.id),
            running=max(0, self._sight.running(machine.id) - known),
            recent=len(book.recent),
            last=book.last,
        )

    def _recent(self, machine_id: str, book: _Book, age_s: float | None) -> int:
        """Drop from *book* what the machine's vitals can show by now, or has ended.

        Return how many of the jobs that are left in it are among the machine's running ones.
        """
        now, known = self._clock(), 0
        shown_since = now - (STALE_S if age_s is None else min(age_s, STALE_S))
        for uuid, placed in list(book.recent.items()):
            under_way = self._sight.under_way(uuid, machine_id)
            lost = under_way is None and now - placed.when > RECORDED_WITHIN_S
            if placed.when < shown_since or under_way is False or lost:
                book.settle(uuid)
            else:
                known += under_way is True
        return known


def _too_few(machines: Sequence[Key], there: Sequence[Key], pick: int) -> ProblemError:
    new = sum(machine.new for machine in machines)
    offline = len(machines) - new - len(there)
    why = ", ".join(f"{number} {what}" for number, what in ((offline, "offline"), (new, "new")) if number)
    hints = ["clustersh machines shows what is online"]
    if new:
        hints.append("a new machine can be chosen once it was used by its name, or an admin has accepted it")
    asked = f"{pick} machine{'' if pick == 1 else 's'} asked for"
    can = f"only {len(there)}" if there else "none"
    return ProblemError(
        Kind.EMPTY_TARGET,
        f"{asked}, but of the target's {len(machines)} {can} can be chosen{f' ({why})' if why else ''}",
        hint="\n".join(hints),
    )
