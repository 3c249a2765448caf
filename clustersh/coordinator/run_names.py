"""Which run, or which job, is meant. Those in memory are known also while the index can't be used."""

from __future__ import annotations

from . import history
from .index import Index
from .records import MachineRef
from .runs import Runs


class RunNames:
    """Finds runs and jobs by what users call them."""

    def __init__(self, runs: Runs, index: Index) -> None:
        self._runs = runs
        self._index = index

    async def uuid(self, text: str) -> str:
        """Return the whole uuid. Raises ProblemError (bad-request, unknown-run, ambiguous-id)."""
        if self._runs.find(text) is not None:
            return text
        return await self._index.ask(lambda connection: history.find_uuid(connection, text))

    async def job(self, machine: str, text: str) -> tuple[str, MachineRef]:
        """Return the run's uuid, and the machine that was called so then. Raises ProblemError."""
        uuid = await self.uuid(text)
        held = self._runs.find(uuid)
        job = held.by_name.get(machine.lower()) if held is not None else None
        if job is not None:
            return uuid, job.machine
        return uuid, await self._index.ask(lambda connection: history.machine_of(connection, uuid, machine))
