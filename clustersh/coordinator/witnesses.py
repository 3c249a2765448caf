"""What the machines hold of the ledger's past: a chain that was computed anew, or cut, does not fit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ..wire.link import Witness, Witnesses, WitnessList
from ..wire.problems import ProblemError
from .bus import Bus
from .ledger_files import Entry, Head
from .registry import Key, Registry

MAX_PAGES = 10_000


@dataclass
class Testimony:
    """The heads that *machines* were told of, by record, with who holds each; *unasked* gave no whole answer."""

    held: dict[int, dict[str, str]] = field(default_factory=dict)
    machines: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)

    def add(self, machine: str, witness: Witness) -> None:
        """Take in what *machine* says."""
        if witness.seq > 0:
            self.held.setdefault(witness.seq, {}).setdefault(witness.hash, machine)

    @property
    def count(self) -> int:
        return sum(len(hashes) for hashes in self.held.values())

    def against(self, entry: Entry) -> str:
        """Return who was told of another record in the place of *entry*; "" for nobody."""
        hashes = self.held.get(entry.seq, {})
        return next((machine for hash_, machine in hashes.items() if hash_ != entry.hash), "")

    def beyond(self, head: Head) -> tuple[int, str]:
        """Return the last record that a machine was told of if it follows *head*, and which machine; 0 for none."""
        last = max(self.held, default=0)
        return (last, next(iter(self.held[last].values()))) if last > head.seq else (0, "")


NO_WITNESSES = Testimony()


class WitnessCollector:
    """Asks every machine that has a link."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self._bus = bus
        self._registry = registry

    async def collect(self) -> Testimony:
        """Return what they hold."""
        found = Testimony()
        for machine in self._registry.machines():
            try:
                await self._ask(machine, found)
            except ProblemError:
                found.unasked.append(machine.name)
            else:
                found.machines.append(machine.name)
        return found

    async def _ask(self, machine: Key, found: Testimony) -> None:
        after = ""
        for _ in range(MAX_PAGES):
            answer = await self._bus.ask(machine.id, partial(Witnesses, after=after))
            if not isinstance(answer, WitnessList):
                return
            for witness in answer.witnesses:
                found.add(machine.name, witness)
            if answer.next <= after:
                return
            after = answer.next
