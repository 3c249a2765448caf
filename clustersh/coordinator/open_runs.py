"""Runs that are under way, or ended a moment ago: what the coordinator holds of them in memory.

A run may have thousands of jobs. So whatever happens to one of them costs the same however many the others are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from twisted.internet.interfaces import IReactorTime

from ..wire.fleet import LeftOut
from ..wire.jobs import Outcome, OutputSummary, State
from ..wire.link import START_WITHIN_S
from ..wire.problems import Kind, ProblemError
from ..wire.rest import RunRequest
from .heads import NOTHING, Head, HeadRoom, RunHeads
from .recent_runs import RecentRuns
from .records import MachineRef
from .shares import Shares
from .signals import Signal

MAX_OPEN_EACH = 10_000
"""Runs that one client may have under way at once."""
MAX_OPEN_BYTES_EACH = 64 << 20
"""Bytes that those may take: their commands and environments, and what each of their jobs takes."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended, as an agent or the coordinator says. *head* None: what it printed is on its machine only."""

    outcome: Outcome
    output: OutputSummary = OutputSummary()  # noqa: RUF009 - it is immutable
    duration_s: float = 0.0
    head: Head | None = NOTHING


@dataclass(slots=True)
class OpenJob:
    """One machine's part of a run. *epoch* is the link it was dispatched on: None not yet, 0 before a restart."""

    uuid: str
    machine: MachineRef
    epoch: int | None = None
    started: str = ""
    unconfirmed: bool = False
    cancelled: bool = False
    ending: bool = False
    end: JobEnd | None = None
    finished: str = ""
    sent: Sent | None = None

    def stop_clock(self) -> None:
        """Wait for the acknowledgement no more."""
        sent, self.sent = self.sent, None
        if sent is not None:
            sent.heard_of(self)

    @property
    def state(self) -> State:
        if self.end is not None:
            return self.end.outcome.state
        return State.RUNNING if self.started else State.REQUESTED


@dataclass
class OpenRun:
    """A run and its jobs by machine id. *command* is as people read it; *weight* is what the run costs its client.

    *width* is on how many of its machines it is at once, at most. *request* is kept until all was dispatched
    (*undispatched* counts): it holds the environment. *order* has the ids of the machines in the order in which their
    jobs ended, *unconfirmed* those that did not acknowledge the start, and *doubts* counts its changes. *changed* tells
    of them and of each end, *settling* that nothing more can be awaited.
    """

    uuid: str
    client: str
    client_id: str
    target: str
    command: str
    cwd: str
    timeout_s: float
    requested: str
    jobs: dict[str, OpenJob]
    raw: bool = True
    exclude: str = ""
    skipped: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    left_out: LeftOut | None = None
    stopped: str | None = None
    request: RunRequest | None = None
    blobs: frozenset[str] = frozenset()
    weight: int = 0
    width: int = 0
    order: list[str] = field(default_factory=list)
    unconfirmed: dict[str, OpenJob] = field(default_factory=dict)
    doubts: int = 0
    heads: RunHeads = field(default_factory=RunHeads)
    changed: Signal = field(default_factory=Signal)
    settling: Signal = field(default_factory=Signal)
    undispatched: int = field(init=False)
    _of_job: dict[str, Signal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.undispatched = len(self.jobs)
        self.width = self.width or len(self.jobs)

    @property
    def ended(self) -> bool:
        return len(self.order) == len(self.jobs)

    @property
    def settled(self) -> bool:
        """Nothing more can be awaited: every job has ended, or its start was never acknowledged."""
        return len(self.order) + len(self.unconfirmed) == len(self.jobs)

    @cached_property
    def by_name(self) -> dict[str, OpenJob]:
        """The jobs by the names that their machines had."""
        return {job.machine.name: job for job in self.jobs.values()}

    def taken_request(self) -> RunRequest | None:
        """Return what was asked for, for one job's dispatch; the last one lets go of it."""
        asked, self.undispatched = self.request, self.undispatched - 1
        if self.undispatched <= 0:
            self.request = None
        return asked

    def telling_of(self, job: OpenJob) -> Signal:
        """Return what tells that this one job has ended, or was not acknowledged."""
        return self._of_job.setdefault(job.machine.id, Signal())

    def confirm(self, job: OpenJob, when: str) -> None:
        """The machine has acknowledged the start."""
        job.stop_clock()
        job.started = job.started or when
        if job.unconfirmed:
            self._doubt_no_more(job)
            self.changed.fire()

    def doubt(self, job: OpenJob) -> None:
        """The machine did not acknowledge the start in time."""
        job.unconfirmed = True
        self.unconfirmed[job.machine.id] = job
        self.doubts += 1
        self.tell(job)

    def finish(self, job: OpenJob, end: JobEnd, when: str) -> None:
        """The job has its outcome; `tell` wakes those who wait for it."""
        job.end, job.finished = end, when
        self._doubt_no_more(job)
        self.order.append(job.machine.id)

    def _doubt_no_more(self, job: OpenJob) -> None:
        if job.unconfirmed:
            job.unconfirmed = False
            del self.unconfirmed[job.machine.id]
            self.doubts += 1

    def tell(self, job: OpenJob) -> None:
        """Wake those who wait for news of the job, or of the run."""
        of_job = self._of_job.get(job.machine.id)
        if of_job is not None:
            of_job.fire()
        self.changed.fire()
        if self.settled:
            self.settling.fire()


class Sent:
    """Jobs that were sent together. After START_WITHIN_S those are doubted whose machines did not acknowledge them."""

    def __init__(self, clock: IReactorTime, run: OpenRun, jobs: Iterable[OpenJob]) -> None:
        self._run = run
        self._jobs = {job.machine.id: job for job in jobs}
        # It keeps the run in memory, so it ends with what it waits for.
        self._limit = clock.callLater(START_WITHIN_S, self._time_is_up)
        for job in self._jobs.values():
            job.sent = self

    def heard_of(self, job: OpenJob) -> None:
        """The job was acknowledged, or has ended."""
        self._jobs.pop(job.machine.id, None)
        if not self._jobs and self._limit.active():
            self._limit.cancel()

    def _time_is_up(self) -> None:
        """An agent that did not answer in time must not begin any more, but may have; only it can tell."""
        silent, self._jobs = self._jobs, {}
        for job in silent.values():
            if job.sent is self:  # those who are told of the first may already have ended the others
                job.sent = None
                self._run.doubt(job)


class RunTable:
    """The runs that are under way, and those that ended last. A client's share of them is bounded."""

    def __init__(self) -> None:
        self._open: dict[str, OpenRun] = {}
        self._on: dict[str, dict[str, OpenRun]] = {}
        self._of: dict[str, dict[str, OpenRun]] = {}
        self._recent = RecentRuns()
        self._shares = Shares()
        self.head_room = HeadRoom()

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self, client_id: str, weight: int) -> None:
        """Raise ProblemError where there is no room (left) for a client's next run."""
        if weight > MAX_OPEN_BYTES_EACH:
            raise ProblemError(Kind.TOO_LARGE, "that run is too large", hint="split its target into several runs")
        there = self._shares.of(client_id)
        if there.things >= MAX_OPEN_EACH or there.size + weight > MAX_OPEN_BYTES_EACH:
            raise ProblemError(
                Kind.RATE_LIMITED,
                f"too many runs at once: {there.things} of this client are under way",
                hint="wait for some of them to end",
            )

    def claim(self, client_id: str, weight: int) -> None:
        """Take the room that a client's next run needs. Raises ProblemError where there is none (left)."""
        self.check_room(client_id, weight)
        self._shares.take(client_id, weight)

    def give_back(self, client_id: str, weight: int) -> None:
        """Return what was claimed."""
        self._shares.give_back(client_id, weight)

    def add(self, run: OpenRun) -> None:
        """Enter a run, whose room was claimed."""
        run.heads = RunHeads(self.head_room)
        self._open[run.uuid] = run
        self._of.setdefault(run.client_id, {})[run.uuid] = run
        for machine_id, job in run.jobs.items():
            if job.end is None:
                self._on.setdefault(machine_id, {})[run.uuid] = run

    def add_earlier(self, run: OpenRun) -> None:
        """Enter a run from before a restart, which has its room already."""
        self._shares.take(run.client_id, run.weight)
        self.add(run)

    def ended(self, run: OpenRun, job: OpenJob) -> None:
        """One of the run's jobs has ended, perhaps its last."""
        on_machine = self._on.get(job.machine.id, {})
        on_machine.pop(run.uuid, None)
        if not on_machine:
            self._on.pop(job.machine.id, None)
        if run.ended and self._open.pop(run.uuid, None) is not None:
            run.request = None
            of_client = self._of[run.client_id]
            del of_client[run.uuid]
            if not of_client:
                del self._of[run.client_id]
            self.give_back(run.client_id, run.weight)
            run.heads.leave_room()
            self._recent.add(run)

    def open(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is under way."""
        return self._open.get(uuid)

    def find(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is under way or ended a moment ago."""
        return self._open.get(uuid) or self._recent.get(uuid)

    def job(self, uuid: str, machine_id: str) -> tuple[OpenRun, OpenJob] | None:
        """Return the job and its run, if the run is under way."""
        run = self._open.get(uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        return None if run is None or job is None else (run, job)

    def on(self, machine_id: str) -> list[tuple[OpenRun, OpenJob]]:
        """Return the machine's jobs that have not ended."""
        return [(run, run.jobs[machine_id]) for run in self._on.get(machine_id, {}).values()]

    def open_jobs(self, machine_id: str) -> int:
        """Return how many of the machine's jobs have not ended, of those that were sent."""
        jobs = (run.jobs[machine_id] for run in self._on.get(machine_id, {}).values())
        return sum(job.end is None and job.epoch is not None for job in jobs)

    def at_once(self, client_id: str) -> int:
        """Return on how many machines a client's runs are, each machine counted in each run."""
        return sum(min(run.width, len(run.jobs) - len(run.order)) for run in self._of.get(client_id, {}).values())

    def running(self) -> Counter[str]:
        """Return how many jobs run on each machine, as far as agents have told."""
        return Counter(
            {
                machine_id: sum(run.jobs[machine_id].state is State.RUNNING for run in runs.values())
                for machine_id, runs in self._on.items()
            }
        )
