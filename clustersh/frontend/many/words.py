"""What became of a job among many: one word for its kind, and in a few words how it ended."""

from __future__ import annotations

import enum
from collections.abc import Collection

from ...wire.jobs import State, offline_since
from ...wire.rest import Job
from ...wire.units import format_timeout


class Kind(enum.StrEnum):
    """The kinds that a summary counts, in its order."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    UNCONFIRMED = "unconfirmed"
    RUNNING = "still running"
    WAITING = "waiting"
    OFFLINE = "offline"
    NOT_STARTED = "not started"
    REFUSED = "refused"

    @property
    def known(self) -> bool:
        """Whether the outcome is known."""
        return self not in _UNKNOWN


_UNKNOWN = (Kind.INTERRUPTED, Kind.LOST, Kind.UNCONFIRMED, Kind.RUNNING, Kind.WAITING)
_KINDS = {
    State.COMPLETED: Kind.COMPLETED,
    State.FAILED: Kind.FAILED,
    State.TIMED_OUT: Kind.TIMED_OUT,
    State.CANCELLED: Kind.CANCELLED,
    State.INTERRUPTED: Kind.INTERRUPTED,
    State.LOST: Kind.LOST,
    State.RUNNING: Kind.RUNNING,
    State.REFUSED: Kind.REFUSED,
}


def kind_of(job: Job, unconfirmed: Collection[str] = ()) -> Kind:
    """Return the kind of *job*; *unconfirmed* names the machines that did not acknowledge the start in time."""
    if job.status is State.REQUESTED:
        return Kind.UNCONFIRMED if job.machine in unconfirmed else Kind.WAITING
    if job.status is State.NOT_STARTED:
        return Kind.OFFLINE if last_seen(job) else Kind.NOT_STARTED
    return _KINDS[job.status]


def last_seen(job: Job) -> str:
    """Return when the machine was last seen, of a job that wasn't started because it is offline; else ""."""
    return offline_since(job.reason or "") if job.status is State.NOT_STARTED else ""


def started(job: Job) -> bool:
    """Whether the command is known to have begun; a start that was acknowledged may still have failed."""
    if job.status in (State.NOT_STARTED, State.REFUSED):
        return False
    return job.started is not None or job.status in (State.COMPLETED, State.FAILED, State.TIMED_OUT, State.RUNNING)


def result(job: Job) -> str:
    """Return how *job* ended in a few words, ``exit 127``; "" where it completed."""
    if job.status is State.COMPLETED:
        return ""
    if job.status is State.TIMED_OUT:
        return _timed_out(job)
    if job.exit_code is not None:
        return f"exit {job.exit_code}"
    if job.signal is not None and job.status is State.FAILED:
        return f"signal {job.signal}"
    return (job.reason or "").removeprefix("the ") or str(job.status).replace("-", " ")


def header_words(job: Job) -> str:
    """Return what a section's header says of *job*: what it ended with, and whether it printed nothing."""
    if job.status is State.RUNNING:
        return "still running"
    if job.status is State.CANCELLED:
        ended = "cancelled"
    elif job.status is State.INTERRUPTED:
        ended = f"interrupted ({result(job)})"
    else:
        ended = result(job)
    return ", ".join(filter(None, (ended, "" if job.output_bytes else "no output")))


def _timed_out(job: Job) -> str:
    if job.reason:
        return job.reason if job.reason.startswith("timed out") else f"timed out: {job.reason}"
    return f"timed out after {format_timeout(job.timeout_s)}" if job.timeout_s else "timed out"
