"""The agent's job store: every job it was ever sent, its outcome, and its output.

``journal`` says durably which jobs are open or not acknowledged; ``jobs/<utc date>/<uuid>/job.json`` is what is
left of each job for ever, with its small output; a larger output lies beside it. All methods are for the reactor's
thread; whatever waits for a disk does so in the store's own threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from ..wire.jobs import Outcome
from ..wire.link import Ended, Witness
from ..wire.output import Stream
from .output_writer import OutputWriter
from .records import JobRecord, ProcessMark, StoredJob


class OutputPart(msgspec.Struct, frozen=True):
    """Output from *offset* of the stream that was asked for; *runs* only for both.

    *size* is the stream's length so far; *ended* says that it grows no more. *data* may be shorter than asked for,
    and is empty only where *offset* is at or past *size*.
    """

    offset: int
    data: bytes
    runs: bytes
    size: int
    ended: bool


class JobStore:
    """The jobs in *folder*. *now* gives wall-clock seconds; *reserve* is the free space (bytes) that output leaves."""

    def __init__(self, reactor: Any, folder: Path, *, reserve: int, now: Callable[[], float]) -> None:
        raise NotImplementedError

    @property
    def store_id(self) -> str:
        """The store's random id; a new one when its jobs are gone. Known once opened."""
        raise NotImplementedError

    async def open(self) -> list[StoredJob]:
        """Read the journal and start; return the jobs that were running when the last agent stopped.

        Each of them is to be ended by `end` (what it printed until then is recovered). Raises StoreError, HomeError.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Write what waits and end the threads."""
        raise NotImplementedError

    async def begin(self, record: JobRecord) -> None:
        """Journal that the job runs; durable when this returns. Raises JobKnownError, StoreError."""
        raise NotImplementedError

    def note_process(self, uuid: str, mark: ProcessMark) -> None:
        """Journal which process the job is, with the next record that is made durable."""
        raise NotImplementedError

    def output(self, uuid: str, on_pressure: Callable[[bool], None] | None = None) -> OutputWriter:
        """Return where the begun job's output goes; the same one when asked again."""
        raise NotImplementedError

    async def end(self, uuid: str, outcome: Outcome, duration_s: float) -> Ended:
        """Finish the job's output, journal its outcome durably, and return what the coordinator is told.

        Ending it again returns the first outcome. After a StoreError the job is still open: try again later.
        """
        raise NotImplementedError

    async def refuse(self, uuid: str, outcome: Outcome, witness: Witness | None = None) -> Ended:
        """Journal durably that the job never starts here; a later `begin` raises JobKnownError.

        Raises JobKnownError if it is known already, StoreError.
        """
        raise NotImplementedError

    def has(self, uuid: str) -> bool:
        """Whether the job was ever begun or refused here."""
        raise NotImplementedError

    def running(self) -> tuple[str, ...]:
        """The jobs that have not ended."""
        raise NotImplementedError

    async def get(self, uuid: str) -> StoredJob:
        """Return the job. Raises StoreError: UNKNOWN_RUN, or STORAGE where it is damaged."""
        raise NotImplementedError

    async def ended(self, uuid: str) -> Ended | None:
        """Return what the coordinator is told of the job, None while it runs. Raises StoreError as `get`."""
        raise NotImplementedError

    def unacknowledged(self) -> tuple[str, ...]:
        """The jobs whose end is durable but not known to be in the ledger, oldest first."""
        raise NotImplementedError

    def acknowledged(self, uuid: str, witness: Witness) -> None:
        """The job's end is in the ledger; it is not reported any more. An unknown job is no matter."""
        raise NotImplementedError

    async def read(self, uuid: str, stream: Stream, offset: int, length: int) -> OutputPart:
        """Return up to *length* bytes (at most MAX_CHUNK) of the stream; of a live job, what reached the disk.

        That is at most some 100 ms behind. Raises StoreError.
        """
        raise NotImplementedError

    def wait_for_more(self, uuid: str, offset: int, stream: Stream) -> Deferred[None]:
        """Fire when the stream goes past *offset* or has ended; may be cancelled."""
        raise NotImplementedError

    async def tail_offset(self, uuid: str, stream: Stream, lines: int) -> int:
        """Return where the stream's last *lines* lines begin; an unfinished last line counts. Raises StoreError."""
        raise NotImplementedError

    def free_space_problem(self) -> str:
        """Say why no job may start now, such as a full disk; empty where one may. Looked at once a second at most."""
        raise NotImplementedError
