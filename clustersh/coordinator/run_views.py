"""Runs as REST tells them, wherever they are remembered: in memory, in the index, on their machines."""

from __future__ import annotations

import msgspec

from ..wire.jobs import State
from ..wire.link import MAX_CHUNK
from ..wire.output import Stream
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.rest import Job, Run, text_or_base64
from . import history
from .fleet import Fleet
from .index import Index
from .open_runs import cut_head, whole_characters
from .outputs import Outputs, Wanted
from .records import MachineRef
from .runs import Runs


class RunViews:
    """Makes the answers about runs."""

    def __init__(self, runs: Runs, index: Index, outputs: Outputs, fleet: Fleet) -> None:
        self._runs = runs
        self._index = index
        self._outputs = outputs
        self._fleet = fleet

    async def run(self, uuid: str, limit: int) -> Run:
        """Return the run with at most *limit* bytes of each job's output. Raises ProblemError: what it was refused for.

        Output that isn't in memory any more is fetched from its machine, and left out where that is offline.
        """
        held = self._runs.find(uuid)
        if held is not None:
            return held.view(limit)
        row, jobs = await self._index.ask(lambda connection: history.run_row(connection, uuid))
        if row["problem"]:
            raise ProblemError.received(msgspec.json.decode(row["problem"], type=Problem))
        with_output = [await self._with_output(job, limit) for job in jobs]
        return Run(
            uuid,
            row["client"],
            row["target"],
            row["command"],
            row["requested"],
            tuple(with_output),
            raw=bool(row["raw"]),
            exclude=row["exclude"],
            skipped=msgspec.json.decode(row["skipped"], type=tuple[str, ...]),
            selected=msgspec.json.decode(row["selected"], type=tuple[str, ...]),
            stopped=row["stopped"],
        )

    def live(self, job: Job) -> Job:
        """Return *job*, a row of the index, with what only memory knows: that it runs."""
        held = self._runs.find(job.uuid) if not job.status.ended else None
        if held is not None:
            for each in held.jobs.values():
                if each.machine.name == job.machine:
                    return held.job_view(each, 0)
        return job

    async def check_has_output(self, uuid: str, machine: MachineRef) -> None:
        """Raise ProblemError where a job's output can't be had, saying why."""
        job = next(job for job in (await self.run(uuid, 0)).jobs if job.machine == machine.name)
        if job.status in (State.NOT_STARTED, State.LOST):
            raise ProblemError(
                Kind.OUTPUT_UNAVAILABLE, f"{uuid} on {machine.name} has no output: {job.reason}", uuid=uuid
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

    async def _with_output(self, job: Job, limit: int) -> Job:
        limit = min(limit, MAX_CHUNK)
        if not job.output_bytes or not limit:
            return job
        machine = await self._index.ask(lambda connection: history.machine_of(connection, job.uuid, job.machine))
        try:
            chunks = self._outputs.chunks(Wanted(machine.id, job.uuid, Stream.BOTH, 0, limit))
            chunk = await anext(chunks)
        except ProblemError:
            return job
        stdout, stderr = cut_head(chunk.data, chunk.runs, limit)
        truncated = len(chunk.data) < job.output_bytes
        if truncated:
            stdout, stderr = whole_characters(stdout), whole_characters(stderr)
        return msgspec.structs.replace(
            job, stdout=text_or_base64(stdout), stderr=text_or_base64(stderr), truncated=truncated
        )
