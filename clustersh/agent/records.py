"""What the job store writes down: the request, the process, and the end of each job."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from ..wire.jobs import BlobRef, Command, Outcome, OutputSummary, State
from ..wire.link import Start, Witness
from ..wire.problems import Kind, ProblemError


class StoreError(ProblemError):
    """The store can't do what was asked: no space, a damaged job (kind STORAGE), or a job it doesn't know."""


class JobKnownError(StoreError):
    """The job was begun, ended or refused before; it is never begun again."""

    def __init__(self, uuid: str) -> None:
        super().__init__(Kind.KEY_CONFLICT, f"the job {uuid} is known here already", uuid=uuid, started=None)


class JobDamagedError(StoreError):
    """What is written down of the job can't be read, and never will be."""

    def __init__(self, path: Path, uuid: str) -> None:
        super().__init__(Kind.STORAGE, f"{path} is damaged", uuid=uuid, started=None)


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked for. *env* holds names only: values are never written down. *begun* is wall-clock seconds."""

    uuid: str
    client: str
    command: Command
    begun: float
    cwd: str = ""
    env: tuple[str, ...] = ()
    timeout_s: float = 0.0
    idle_timeout_s: float = 0.0
    stdin: bool = False
    files: BlobRef | None = None
    keep_files: bool = False
    witness: Witness | None = None

    @classmethod
    def of(cls, start: Start, begun: float) -> JobRecord:
        """Return the record of *start*, without its secrets."""
        return cls(
            uuid=start.uuid,
            client=start.client,
            command=start.command,
            begun=begun,
            cwd=start.cwd,
            env=tuple(sorted(start.env)),
            timeout_s=start.timeout_s,
            idle_timeout_s=start.idle_timeout_s,
            stdin=start.stdin,
            files=start.files,
            keep_files=start.keep_files,
            witness=start.witness,
        )


class ProcessMark(msgspec.Struct, frozen=True):
    """Which process a job is: a pid alone may be another's by now. *created* is as `tree.created` says it."""

    pid: int
    created: float
    boot_id: str


class JobEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended, and all of its output where that is small (*data*, interleaved, with its *runs*).

    *at* is wall-clock seconds, *duration_s* the monotonic clock's.
    """

    outcome: Outcome
    at: float
    output: OutputSummary = OutputSummary()
    duration_s: float = 0.0
    data: bytes = b""
    runs: bytes = b""

    @property
    def inline(self) -> bool:
        """Whether *data* is the whole output; else it is in files beside ``job.json``."""
        return len(self.data) == self.output.total_bytes

    def or_cut(self) -> JobEnd:
        """Return this end; of a command that ended by itself, but whose last output was not kept, a failure."""
        cut, outcome = self.output.cut, self.outcome
        if not cut or outcome.reason is not None:
            return self
        ended = f"exit {outcome.exit_code}" if outcome.signal is None else f"signal {outcome.signal}"
        failed = Outcome(State.FAILED, reason=f"{cut}: not all of its output is kept ({ended})")
        return msgspec.structs.replace(self, outcome=failed)


class StoredJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job as the store knows it, and what ``job.json`` holds. *record* is None for one that was only refused."""

    uuid: str
    record: JobRecord | None = None
    mark: ProcessMark | None = None
    end: JobEnd | None = None


class _Entry(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    pass


class RunningEntry(_Entry, frozen=True, tag="running"):
    """Journalled before the process exists."""

    record: JobRecord


class ProcessEntry(_Entry, frozen=True, tag="process"):
    """The job's process, so that an agent that restarts finds what is left of it."""

    uuid: str
    mark: ProcessMark


class EndedEntry(_Entry, frozen=True, tag="ended"):
    """The job's one outcome."""

    uuid: str
    end: JobEnd


class RefusedEntry(_Entry, frozen=True, tag="refused"):
    """The job never ran and never will."""

    uuid: str
    end: JobEnd
    witness: Witness | None = None


class AcknowledgedEntry(_Entry, frozen=True, tag="acknowledged"):
    """The coordinator has the job's outcome in its ledger."""

    uuid: str
    witness: Witness


Entry: TypeAlias = RunningEntry | ProcessEntry | EndedEntry | RefusedEntry | AcknowledgedEntry
