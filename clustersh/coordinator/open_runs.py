"""Runs that are under way, or ended a moment ago: what the coordinator holds of them in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ..wire.jobs import Outcome, OutputSummary, State
from ..wire.output import Stream, pieces
from ..wire.rest import Job, Run, RunRequest, text_or_base64
from .records import MachineRef, RunRequested
from .signals import Signal


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

    @property
    def state(self) -> State:
        if self.end is not None:
            return self.end.outcome.state
        return State.RUNNING if self.started else State.REQUESTED


@dataclass
class OpenRun:
    """A run and its jobs by machine id. *request* is kept until it was dispatched: it holds the environment."""

    record: RunRequested
    requested: str
    jobs: dict[str, OpenJob]
    request: RunRequest | None = None
    blobs: frozenset[str] = frozenset()
    changed: Signal = field(default_factory=Signal)

    @property
    def uuid(self) -> str:
        return self.record.uuid

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
        record = self.record
        return Run(record.uuid, record.client, record.target, record.command.text, self.requested, jobs, unconfirmed)

    def job_view(self, job: OpenJob, limit: int) -> Job:
        """Return *job* as REST tells it."""
        end, record = job.end, self.record
        common = {
            "uuid": record.uuid,
            "machine": job.machine.name,
            "client": record.client,
            "command": record.command.text,
            "cwd": record.cwd,
            "status": job.state,
            "requested": self.requested,
            "started": job.started or None,
            "timeout_s": record.timeout_s,
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
    return sum(len(job.end.head) for job in run.jobs.values() if job.end) + len(run.record.command.text)
