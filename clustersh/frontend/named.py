"""Which of a run's machines a target names: the coordinator says what it means."""

from __future__ import annotations

from ..cli.changes import target_query
from ..cli.errors import CliError
from ..rest_client import RestClient
from ..wire.fleet import TargetView
from ..wire.problems import Kind
from ..wire.rest import Job, Run
from .many.names import node_set


async def jobs_on(client: RestClient, run: Run, target: str) -> list[Job]:
    """Return the jobs of *run* on the machines of *target* (all of them if that is "").

    Raises CliError where there is none, ProblemError where the target means nothing.
    """
    if not target:
        return list(run.jobs)
    view = await client.call("GET", "/v1/targets", answer=TargetView, query=target_query(target))
    named = frozenset(view.machines)
    jobs = [job for job in run.jobs if job.machine in named]
    if not jobs:
        ran_on = node_set([job.machine for job in run.jobs])
        raise CliError(
            f"{run.uuid} is none of {target}: no machine of it was asked to run that",
            (f"it was for {ran_on}",),
            kind=Kind.UNKNOWN_RUN,
            uuid=run.uuid,
        )
    return jobs
