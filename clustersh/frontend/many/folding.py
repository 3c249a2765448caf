"""Jobs with one result and one output, together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ...wire.jobs import State
from ...wire.rest import Job, Run
from .names import counted, natural
from .words import header_words, started

_WITHOUT_OUTPUT = (State.REQUESTED, State.RUNNING, State.LOST, State.NOT_STARTED, State.REFUSED)


class Group(NamedTuple):
    """*machines* (in order) whose jobs ended as *job* did and printed the very same: what *text* holds."""

    machines: tuple[str, ...]
    job: Job
    text: Job

    @property
    def failed(self) -> bool:
        return self.job.status is not State.COMPLETED

    @property
    def header(self) -> str:
        """The line above its output, without an end."""
        words = header_words(self.job)
        return counted(self.machines) + (f": {words}" if words else "")


def shown(jobs: Iterable[Job]) -> list[Job]:
    """Return those of *jobs* that have a section: they ran, and can tell what they printed."""
    return [job for job in jobs if job.status not in _WITHOUT_OUTPUT and (started(job) or job.output_bytes)]


def fold(run: Run) -> list[Group]:
    """Return what the jobs of *run* printed, each output once: the most frequent first, failures last."""
    by_name = {job.machine: job for job in run.jobs}
    alike: dict[tuple[str, str], list[Job]] = {}
    for job in shown(run.jobs):
        alike.setdefault((_text_of(job), header_words(job)), []).append(job)
    groups = []
    for jobs in alike.values():
        jobs.sort(key=lambda job: natural(job.machine))
        text = by_name.get(jobs[0].same_as or "", jobs[0])
        groups.append(Group(tuple(job.machine for job in jobs), jobs[0], text))
    return sorted(groups, key=lambda group: (group.failed, -len(group.machines), natural(group.machines[0])))


def each(run: Run) -> list[Group]:
    """Return a group for each job of *run*, in the order of their names, failures last."""
    jobs = sorted(shown(run.jobs), key=lambda job: (job.status is not State.COMPLETED, natural(job.machine)))
    by_name = {job.machine: job for job in run.jobs}
    return [Group((job.machine,), job, by_name.get(job.same_as or "", job)) for job in jobs]


def majority(groups: list[Group]) -> str:
    """Return the machine whose text most machines printed (a success counts more than a failure among equals)."""
    machines: Counter[str] = Counter()
    completed: set[str] = set()
    for group in groups:
        machines[_text_of(group.text)] += len(group.machines)
        if not group.failed:
            completed.add(_text_of(group.text))
    return max(machines, key=lambda name: (machines[name], name in completed))


def _text_of(job: Job) -> str:
    """Return which text *job* printed: the name of the machine that has it; "" is nothing."""
    return (job.same_as or job.machine) if job.output_bytes else ""
