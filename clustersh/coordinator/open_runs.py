"""Runs that are under way, or ended a moment ago: what the coordinator holds of them in memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall

from ..wire.jobs import Outcome, OutputSummary, State
from ..wire.output import Stream, pieces
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Job, Run, RunRequest, text_or_base64
from .records import MachineRef
from .signals import Signal

MAX_OPEN_EACH = 10_000
"""Runs that one client may have under way at once."""
MAX_OPEN_BYTES_EACH = 64 << 20
"""Bytes of commands and environments in them."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended, as an agent or the coordinator says; *head* is the start of its output, interleaved."""

    outcome: Outcome
    output: OutputSummary = OutputSummary()  # noqa: RUF009 - it is immutable
    duration_s: float = 0.0
    head: bytes = b""
    head_runs: bytes = b""


@dataclass
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
    overdue: IDelayedCall | None = None
    """Tells that the start was not acknowledged; it keeps the run in memory."""

    def stop_clock(self) -> None:
        """Wait for the acknowledgement no more."""
        overdue, self.overdue = self.overdue, None
        if overdue is not None and overdue.active():
            overdue.cancel()

    @property
    def state(self) -> State:
        if self.end is not None:
            return self.end.outcome.state
        return State.RUNNING if self.started else State.REQUESTED


@dataclass
class OpenRun:
    """A run and its jobs by machine id. *command* is as people read it; *weight* is what the run costs its client.

    *request* is kept until all was dispatched (*undispatched* counts): it holds the environment. *changed* tells of
    ends and of missing confirmations.
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
    stopped: str | None = None
    request: RunRequest | None = None
    blobs: frozenset[str] = frozenset()
    weight: int = 0
    changed: Signal = field(default_factory=Signal)
    undispatched: int = field(init=False)

    def __post_init__(self) -> None:
        self.undispatched = len(self.jobs)

    def taken_request(self) -> RunRequest | None:
        """Return what was asked for, for one job's dispatch; the last one lets go of it."""
        asked, self.undispatched = self.request, self.undispatched - 1
        if self.undispatched <= 0:
            self.request = None
        return asked

    @property
    def ended(self) -> bool:
        return all(job.end is not None for job in self.jobs.values())

    @property
    def settled(self) -> bool:
        """Nothing more can be awaited: every job has ended, or its start was never acknowledged."""
        return all(job.end is not None or job.unconfirmed for job in self.jobs.values())

    def view(self, limit: int) -> Run:
        """Return the run as REST tells it, with at most *limit* bytes of each job's output."""
        jobs = tuple(self.job_view(job, limit) for job in self.jobs.values())
        unconfirmed = tuple(
            job.machine.name for job in self.jobs.values() if job.unconfirmed and job.end is None and not job.started
        )
        return Run(
            self.uuid,
            self.client,
            self.target,
            self.command,
            self.requested,
            jobs,
            unconfirmed,
            self.raw,
            self.exclude,
            self.skipped,
            self.selected,
            self.stopped,
        )

    def job_view(self, job: OpenJob, limit: int) -> Job:
        """Return *job* as REST tells it."""
        end = job.end
        common = {
            "uuid": self.uuid,
            "machine": job.machine.name,
            "client": self.client,
            "command": self.command,
            "cwd": self.cwd,
            "status": job.state,
            "requested": self.requested,
            "started": job.started or None,
            "timeout_s": self.timeout_s,
        }
        if end is None:
            return Job(**common)  # type: ignore[arg-type]
        stdout, stderr = cut_head(end.head, end.head_runs, limit)
        truncated = len(stdout) + len(stderr) < end.output.total_bytes
        if truncated:
            stdout, stderr = whole_characters(stdout), whole_characters(stderr)
        return Job(
            **common,  # type: ignore[arg-type]
            finished=job.finished,
            duration_s=end.duration_s,
            exit_code=end.outcome.exit_code,
            signal=end.outcome.signal,
            reason=end.outcome.reason,
            stdout=text_or_base64(stdout),
            stderr=text_or_base64(stderr),
            truncated=truncated,
            output_bytes=end.output.total_bytes,
            stdout_bytes=end.output.stdout_bytes,
            stderr_bytes=end.output.stderr_bytes,
        )


def cut_head(head: bytes, runs: bytes, limit: int) -> tuple[bytes, bytes]:
    """Return (stdout, stderr) of the first *limit* bytes of interleaved output."""
    streams, left = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}, limit
    for stream, piece in pieces(head, runs):
        streams[stream] += piece[:left]
        left -= len(piece[:left])
        if not left:
            break
    return bytes(streams[Stream.STDOUT]), bytes(streams[Stream.STDERR])


def whole_characters(data: bytes) -> bytes:
    """Return *data* without a UTF-8 character that a cut left incomplete at its end."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return data[: error.start]
    return data


class RecentRuns:
    """The runs that ended last, for those who ask again; bounded in number and in bytes of output."""

    def __init__(self, max_runs: int = 1024, max_bytes: int = 32 << 20) -> None:
        self._runs: OrderedDict[str, OpenRun] = OrderedDict()
        self._max_runs = max_runs
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, run: OpenRun) -> None:
        """Keep *run*, dropping the oldest."""
        self._runs[run.uuid] = run
        self._bytes += _weight(run)
        while len(self._runs) > self._max_runs or self._bytes > self._max_bytes:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= _weight(oldest)

    def get(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is still here."""
        return self._runs.get(uuid)


def _weight(run: OpenRun) -> int:
    return sum(len(job.end.head) for job in run.jobs.values() if job.end) + len(run.command)


class RunTable:
    """The runs that are under way, and those that ended last. A client's share of them is bounded."""

    def __init__(self) -> None:
        self._open: dict[str, OpenRun] = {}
        self._of_machine: dict[str, dict[str, OpenRun]] = {}
        self._recent = RecentRuns()
        self._count: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def claim(self, client_id: str, weight: int) -> None:
        """Take the room that a client's next run needs. Raises ProblemError (rate-limited) where there is none left."""
        if self._count[client_id] >= MAX_OPEN_EACH or self._bytes[client_id] + weight > MAX_OPEN_BYTES_EACH:
            raise ProblemError(
                Kind.RATE_LIMITED,
                f"too many runs at once: {self._count[client_id]} of this client are under way",
                hint="wait for some of them to end",
            )
        self._count[client_id] += 1
        self._bytes[client_id] += weight

    def give_back(self, client_id: str, weight: int) -> None:
        """Return what was claimed."""
        for counter, amount in ((self._count, 1), (self._bytes, weight)):
            counter[client_id] -= amount
            if counter[client_id] <= 0:
                del counter[client_id]

    def add(self, run: OpenRun) -> None:
        """Enter a run, whose room was claimed."""
        self._open[run.uuid] = run
        for machine_id in run.jobs:
            self._of_machine.setdefault(machine_id, {})[run.uuid] = run

    def add_earlier(self, run: OpenRun) -> None:
        """Enter a run from before a restart, which has its room already."""
        self._count[run.client_id] += 1
        self._bytes[run.client_id] += run.weight
        self.add(run)

    def over(self, run: OpenRun) -> None:
        """The run has ended."""
        run.request = None
        if self._open.pop(run.uuid, None) is not None:
            for machine_id in run.jobs:
                runs = self._of_machine[machine_id]
                del runs[run.uuid]
                if not runs:
                    del self._of_machine[machine_id]
            self.give_back(run.client_id, run.weight)
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
        """Return the machine's jobs in runs that are under way."""
        return [(run, run.jobs[machine_id]) for run in self._of_machine.get(machine_id, {}).values()]

    def open_jobs(self, machine_id: str) -> int:
        """Return how many of the machine's jobs have not ended, of those that were sent."""
        jobs = (run.jobs[machine_id] for run in self._of_machine.get(machine_id, {}).values())
        return sum(job.end is None and job.epoch is not None for job in jobs)

    def running(self) -> Counter[str]:
        """Return how many jobs run on each machine, as far as agents have told."""
        jobs = (job for run in self._open.values() for job in run.jobs.values())
        return Counter(job.machine.id for job in jobs if job.state is State.RUNNING)
