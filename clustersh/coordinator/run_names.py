"""Which run, or which jobs, are meant. Those in memory are known also while the index can't be used.

A machine is found by the name that it had when the run was made, which is what histories show, or else by the one that
it has now.
"""

from __future__ import annotations

from ..folding import node_set
from ..wire.problems import Kind, ProblemError
from . import history
from .expressions import shown
from .index import Index
from .records import MachineRef
from .registry import Registry
from .runs import Runs
from .targets import Targets


class RunNames:
    """Finds runs and jobs by what users call them."""

    def __init__(self, runs: Runs, index: Index, registry: Registry, targets: Targets) -> None:
        self._runs = runs
        self._index = index
        self._registry = registry
        self._targets = targets

    async def uuid(self, text: str) -> str:
        """Return the whole uuid. Raises ProblemError (bad-request, unknown-run, ambiguous-id)."""
        if self._runs.find(text) is not None:
            return text
        return await self._index.ask(lambda connection: history.find_uuid(connection, text))

    async def job(self, machine: str, text: str) -> tuple[str, MachineRef]:
        """Return the run's uuid, and the machine of that name, as it was called then. Raises ProblemError."""
        uuid, name = await self.uuid(text), machine.lower()
        now = self._registry.find(name)
        now_id = now.id if now else ""
        held = self._runs.find(uuid)
        job = (held.by_name.get(name) or held.jobs.get(now_id)) if held is not None else None
        if job is not None:
            return uuid, job.machine
        return uuid, await self._index.ask(lambda connection: history.machine_of(connection, uuid, name, now_id))

    async def on(self, uuid: str, target: str, exclude: str = "") -> frozenset[str]:
        """Return the ids of those of a run's machines that *target* means now ("": all), without those of *exclude*.

        Raises ProblemError: unknown-run where none of them is left, and as `Targets.resolve` does.
        """
        meant = {machine.id for machine in self._targets.resolve(target, exclude).machines} if target else None
        unwanted = self._targets.excluded(exclude) if not target else frozenset[str]()
        held = self._runs.find(uuid)
        if held is not None:
            machines = [job.machine for job in held.jobs.values()]
        else:
            machines = await self._index.ask(lambda connection: history.machines(connection, uuid))
        ids = frozenset(machine.id for machine in machines)
        found = ids - unwanted if meant is None else ids & meant
        if not found:
            raise ProblemError(
                Kind.UNKNOWN_RUN,
                _none(uuid, target, exclude),
                hint=f"it was for {node_set([machine.name for machine in machines[: history.NAMED]])}",
                uuid=uuid,
            )
        return found


def _none(uuid: str, target: str, exclude: str) -> str:
    if not target:
        return f"nothing of {uuid} is left without {shown(exclude)}"
    without = f" without {shown(exclude)}" if exclude else ""
    return f"{uuid} is none of {target}{without}: no machine of it was asked to run that"
