"""What the coordinator sees of its machines, as placement needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from ...wire.link import Vitals
from ..fleet import Fleet
from ..open_runs import RunTable
from .placer import Placer
from .policies import Policies

Known: TypeAlias = Callable[[Iterable[str]], Mapping[str, tuple[Vitals, float]]]


class FleetSight:
    """Looks at the fleet and at the runs that are under way; *vitals* as in Sight."""

    def __init__(self, fleet: Fleet, table: RunTable, vitals: Known) -> None:
        self._fleet = fleet
        self._table = table
        self.vitals = vitals

    def status(self, machine_id: str) -> str:
        return self._fleet.status(machine_id)

    def cpus(self, machine_id: str) -> int:
        seen = self._fleet.seen.get(machine_id)
        return seen.facts.cpus if seen is not None else 0

    def running(self, machine_id: str) -> int:
        return self._table.open_jobs(machine_id)

    def under_way(self, uuid: str, machine_id: str) -> bool | None:
        run = self._table.find(uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        return None if job is None else job.end is None


def make_placer(fleet: Fleet, table: RunTable, vitals: Known, clock: Callable[[], float]) -> Placer:
    """Return what places runs in that fleet, by the policies that are installed; blocks."""
    return Placer(Policies.installed(), FleetSight(fleet, table, vitals), clock)
