"""Jobs as REST tells them, each with where the start of its output is to be had."""

from __future__ import annotations

from dataclasses import dataclass

from ..wire.rest import Job
from .heads import NOTHING, Head
from .open_runs import OpenJob, OpenRun

MAX_LISTED_COMMAND = 1024
"""Characters of its command that a job among others carries: the run has it whole."""


@dataclass(slots=True)
class Printed:
    """A job, as yet without its output: that begins with *head*, or is on the machine only (None).

    *sums* are the SHA-256s of both streams, "" where they are not known.
    """

    job: Job
    machine_id: str
    sums: tuple[str, str]
    head: Head | None = NOTHING


def listed(command: str) -> str:
    """Return *command* as one job among others carries it."""
    return command if len(command) <= MAX_LISTED_COMMAND else f"{command[: MAX_LISTED_COMMAND - 1]}…"


def printed(run: OpenRun, job: OpenJob, command: str) -> Printed:
    """Return what memory knows of *job*; *command* is its run's, as the answer carries it."""
    end = job.end
    if end is None:
        known = Job(
            run.uuid,
            job.machine.name,
            run.client,
            command,
            run.cwd,
            job.state,
            run.requested,
            job.started or None,
            timeout_s=run.timeout_s,
        )
        return Printed(known, job.machine.id, ("", ""))
    outcome, output = end.outcome, end.output
    known = Job(
        run.uuid,
        job.machine.name,
        run.client,
        command,
        run.cwd,
        outcome.state,
        run.requested,
        job.started or None,
        finished=job.finished,
        duration_s=end.duration_s,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        reason=outcome.reason,
        truncated=output.total_bytes > 0,
        output_bytes=output.total_bytes,
        stdout_bytes=output.stdout_bytes,
        stderr_bytes=output.stderr_bytes,
        timeout_s=run.timeout_s,
    )
    return Printed(known, job.machine.id, (output.stdout_sha256, output.stderr_sha256), end.head)
