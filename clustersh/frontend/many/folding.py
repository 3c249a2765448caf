"""Jobs with one result and one output, together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ...wire.jobs import State
from ...wire.rest import Job
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


def fold(jobs: Iterable[Job], answered: Iterable[Job], *, running: bool = False) -> list[Group]:
    """Return what *jobs* printed, each output once: the most frequent first, failures last.

    Their texts are in *answered*. Those that ran are meant, and with *running* those that do.
    """
    by_name = {job.machine: job for job in answered}
    alike: dict[tuple[str, str], list[Job]] = {}
    for job in _with_section(jobs, running):
        alike.setdefault((_text_of(job), header_words(job)), []).append(job)
    groups = [_group(sorted(each, key=lambda job: natural(job.machine)), by_name) for each in alike.values()]
    return sorted(groups, key=lambda group: (group.failed, -len(group.machines), natural(group.machines[0])))


def each(jobs: Iterable[Job], answered: Iterable[Job], *, running: bool = False) -> list[Group]:
    """Return a group for each of *jobs*, in the order of their names, failures last. The rest is as with `fold`."""
    by_name = {job.machine: job for job in answered}
    groups = [_group([job], by_name) for job in _with_section(jobs, running)]
    return sorted(groups, key=lambda group: (group.failed, natural(group.machines[0])))


def _with_section(jobs: Iterable[Job], running: bool) -> list[Job]:
    """Return those of *jobs* that ran, and can tell what they printed."""
    return [
        job
        for job in jobs
        if (running and job.status is State.RUNNING)
        or (job.status not in _WITHOUT_OUTPUT and (started(job) or job.output_bytes))
    ]


def _group(jobs: list[Job], by_name: dict[str, Job]) -> Group:
    return Group(tuple(job.machine for job in jobs), jobs[0], by_name.get(jobs[0].same_as or "", jobs[0]))


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
    return (job.same_as or job.machine) if job.output_bytes or not job.status.ended else ""
