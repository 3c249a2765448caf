"""How far a run on many machines is: who has ended, and how."""

from __future__ import annotations

from collections.abc import Iterable

from ...wire.jobs import State
from ...wire.rest import Job, Run
from .names import natural, node_set

MAX_NAMED = 200
"""Machines that still run and are named: no terminal has room for more."""


class Tally:
    """Counts the ends of the jobs of *run*, each in time that doesn't depend on how many there are."""

    def __init__(self, run: Run) -> None:
        self.total = len(run.jobs)
        self.failed = 0
        self.running = {job.machine: None for job in sorted(run.jobs, key=lambda job: natural(job.machine))}
        self._named = ("", -1)

    @property
    def ended(self) -> int:
        return self.total - len(self.running)

    def take(self, jobs: Iterable[Job]) -> None:
        """These have ended."""
        for job in jobs:
            if job.machine in self.running:
                del self.running[job.machine]
                self.failed += job.status is not State.COMPLETED

    def waits_only_for(self, machines: Iterable[str]) -> bool:
        """Whether all that has not ended is among *machines*."""
        return bool(self.running) and self.running.keys() <= set(machines)

    def line(self) -> str:
        """Return what is shown while it goes on: ``7 of 9 ended, 1 failed; running: web[03,08]``."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.ended} of {self.total} ended{failed}; running: {self._names()}"

    def _names(self) -> str:
        if self._named[1] != len(self.running):
            names = list(self.running)
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            self._named = (node_set(names[:MAX_NAMED]) + more, len(names))
        return self._named[0]
