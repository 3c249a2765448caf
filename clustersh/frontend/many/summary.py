"""What a run on many machines came to: one line, and the exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...cli.errors import CANCELLED, NOTHING_RAN, REFUSED, UNCERTAIN
from ...cli.text import printable
from ...wire.jobs import State
from ...wire.rest import Job, Run
from .. import left_out
from ..not_started import hint_about
from ..outcome import POLICY_HINT, Message
from .names import natural, node_set
from .words import Kind, kind_of, last_seen, result, started

MAX_HINTS = 5
MAX_DETAILS = 10
"""Different results of one kind that the line has; the documents (``-o json``) have them all."""
_FAILED = 1
_UNEXPLAINED = (Kind.COMPLETED, Kind.CANCELLED, Kind.UNCONFIRMED, Kind.RUNNING, Kind.WAITING, Kind.TIMED_OUT)


def summary(run: Run) -> str:
    """Return the line: ``9 completed, 1 failed (web10: exit 127), 1 offline (web11, last seen 2h ago)``."""
    skipped = f"{len(run.skipped)} skipped (offline: {node_set(run.skipped)})" if run.skipped else ""
    new = left_out.words(run.left_out) if run.left_out else ""
    return ", ".join(filter(None, (told_of(run.jobs, run), skipped, new)))


def counts(jobs: Iterable[Job]) -> str:
    """Return how many of *jobs* ended in which way: ``9 completed, 1 failed``."""
    found = Counter(kind_of(job) for job in jobs)
    return ", ".join(f"{found[kind]} {kind}" for kind in Kind if kind in found)


def told_of(jobs: Iterable[Job], run: Run) -> str:
    """Return the same of these *jobs* of *run*; nothing in it can steer a terminal."""
    kinds: dict[Kind, list[Job]] = {kind: [] for kind in Kind}
    for job in jobs:
        kinds[kind_of(job, run.unconfirmed)].append(job)
    return printable(", ".join(_part(kind, alike, run) for kind, alike in kinds.items() if alike))


def none_started(jobs: Sequence[Job], stopped: str | None, what: str = "nothing ran: the command") -> Message:
    """Return what is said of *jobs*, none of which began: why their run was *stopped*, or that *what* did not start."""
    names = sorted((job.machine for job in jobs), key=natural)
    where = f"on {names[0]}" if len(names) == 1 else f"on any of {node_set(names)}"
    hints: dict[str, list[str]] = {}
    for job in jobs:
        if not stopped or job.reason != stopped:
            hints.setdefault(_hint(job), []).append(job.machine)
    told = (hint.format(where=node_set(alike)) for hint, alike in list(hints.items())[:MAX_HINTS])
    return Message(stopped or f"{what} did not start {where}", tuple(told))


def _hint(job: Job) -> str:
    if job.status is State.REFUSED:
        return POLICY_HINT
    if job.status is State.CANCELLED:
        return "it was cancelled before it began; repeating it is safe"
    return hint_about(job.reason or "")


def exit_status(run: Run, *, cut: bool, interrupted: bool = False) -> int:
    """Return the status that *run* ends with. *cut*: not all of its output was shown; *interrupted*: by its caller."""
    kinds = {kind_of(job, run.unconfirmed) for job in run.jobs}
    if not all(kind.known for kind in kinds):
        return UNCERTAIN
    if interrupted and Kind.CANCELLED in kinds:
        return CANCELLED
    if not any(started(job) for job in run.jobs):
        return REFUSED if Kind.REFUSED in kinds else NOTHING_RAN
    if kinds != {Kind.COMPLETED}:
        return _FAILED
    return UNCERTAIN if cut else 0


def _part(kind: Kind, jobs: list[Job], run: Run) -> str:
    count = f"{len(jobs)} {kind}"
    if kind is Kind.COMPLETED:
        return count
    alike: dict[str, list[str]] = {}
    for job in sorted(jobs, key=lambda job: natural(job.machine)):
        alike.setdefault(_detail(kind, job, run), []).append(job.machine)
    details = [f"{node_set(names)}{detail}" for detail, names in list(alike.items())[:MAX_DETAILS]]
    if len(alike) > MAX_DETAILS:
        rest = [name for names in list(alike.values())[MAX_DETAILS:] for name in names]
        details.append(f"{node_set(rest)} otherwise")
    return f"{count} ({'; '.join(details)})"


def _detail(kind: Kind, job: Job, run: Run) -> str:
    if kind is Kind.OFFLINE:
        return f", {last_seen(job)}"
    # Why a run was stopped is said once, and not of each machine.
    if kind in _UNEXPLAINED or (job.reason and job.reason == run.stopped):
        return ""
    return f": {result(job)}"
