"""Runs as REST tells them, wherever they are remembered: in memory, in the index, on their machines."""

from __future__ import annotations

import msgspec

from ..wire.jobs import State
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.queries import MAX_PAGE
from ..wire.rest import Ends, Job, Run
from . import history
from .fleet import Fleet
from .index import Index
from .open_runs import OpenRun
from .printed import Printed, listed, printed
from .records import MachineRef
from .runs import Runs
from .texts import Texts


class RunViews:
    """Makes the answers about runs. Output that isn't in memory any more is fetched, where its machine is there."""

    def __init__(self, runs: Runs, index: Index, texts: Texts, fleet: Fleet) -> None:
        self._runs = runs
        self._index = index
        self._texts = texts
        self._fleet = fleet

    async def run(self, uuid: str, limit: int, *, fold: bool = False, only: frozenset[str] = frozenset()) -> Run:
        """Return the run with at most *limit* bytes of output, shared fairly; to *fold*: each text once.

        Of its jobs *only* those on the machines with these ids, if any are given. Raises ProblemError: what
        it was refused for.
        """
        held = self._runs.find(uuid)
        if held is not None:
            return _held_view(held, await self._texts.shared(_some(_all_of(held), only), limit, fold=fold))
        row, jobs = await self._index.ask(lambda connection: history.run_row(connection, uuid))
        if row["problem"]:
            raise ProblemError.received(msgspec.json.decode(row["problem"], type=Problem))
        told = await self._texts.shared(_some(jobs, only), limit, fold=fold)
        return Run(
            uuid,
            row["client"],
            row["target"],
            row["command"],
            row["requested"],
            tuple(told),
            raw=bool(row["raw"]),
            exclude=row["exclude"],
            skipped=msgspec.json.decode(row["skipped"], type=tuple[str, ...]),
            selected=msgspec.json.decode(row["selected"], type=tuple[str, ...]),
            stopped=row["stopped"],
            left_out=history.left_out(row),
        )

    async def ends(self, uuid: str, after: int, limit: int) -> Ends:
        """Return the jobs that have ended, from the *after*-th on, with at most *limit* bytes of each one's output."""
        held = self._runs.find(uuid)
        if held is not None:
            ids, command = held.order[after : after + MAX_PAGE], _job_command(held)
            jobs = [printed(held, held.jobs[machine_id], command) for machine_id in ids]
            last = held.ended and after + len(ids) >= len(held.order)
        else:
            jobs, last = await self._index.ask(lambda connection: history.ended_jobs(connection, uuid, after, MAX_PAGE))
        told = await self._texts.own(jobs, limit)
        unconfirmed = _unconfirmed(held) if held is not None else ()
        return Ends(tuple(told), after + len(told), last and len(told) == len(jobs), unconfirmed)

    async def job(self, uuid: str, machine_id: str, limit: int) -> Job:
        """Return one job with at most *limit* bytes of its output."""
        [job] = await self._texts.shared([await self._one(uuid, machine_id)], limit)
        return job

    async def _one(self, uuid: str, machine_id: str) -> Printed:
        held = self._runs.find(uuid)
        if held is not None:
            return printed(held, held.jobs[machine_id], held.command)
        _, [job] = await self._index.ask(lambda connection: history.run_row(connection, uuid, machine_id))
        return job

    def live(self, job: Job) -> Job:
        """Return *job*, a row of the index, with what only memory knows: that it runs."""
        held = self._runs.find(job.uuid) if not job.status.ended else None
        open_job = held.by_name.get(job.machine) if held is not None else None
        return job if held is None or open_job is None else printed(held, open_job, job.command).job

    async def check_has_output(self, uuid: str, machine: MachineRef) -> None:
        """Raise ProblemError where a job's output can't be had, saying why."""
        job = (await self._one(uuid, machine.id)).job
        if job.status in (State.NOT_STARTED, State.LOST):
            raise ProblemError(
                Kind.OUTPUT_UNAVAILABLE,
                f"{uuid} on {machine.name} has no output: {job.reason}",
                hint=f"how it went: clustersh history {machine.name}",
                uuid=uuid,
            )
        await self._fleet.until_back(machine.id)
        if self._fleet.epoch(machine.id) is None:
            raise ProblemError(
                Kind.OUTPUT_UNAVAILABLE,
                f"{self._fleet.offline_reason(machine)}; the output is kept there",
                hint="ask again when it is back: clustersh machines",
                uuid=uuid,
                started=True,
            )


def _some(jobs: list[Printed], only: frozenset[str]) -> list[Printed]:
    return [each for each in jobs if each.machine_id in only] if only else jobs


def _all_of(run: OpenRun) -> list[Printed]:
    command = _job_command(run)
    return [printed(run, job, command) for job in run.jobs.values()]


def _job_command(run: OpenRun) -> str:
    return run.command if len(run.jobs) == 1 else listed(run.command)


def _unconfirmed(run: OpenRun) -> tuple[str, ...]:
    return tuple(job.machine.name for job in run.unconfirmed.values())


def _held_view(run: OpenRun, jobs: list[Job]) -> Run:
    return Run(
        run.uuid,
        run.client,
        run.target,
        run.command,
        run.requested,
        tuple(jobs),
        _unconfirmed(run),
        run.raw,
        run.exclude,
        run.skipped,
        run.selected,
        run.stopped,
        run.left_out,
    )
