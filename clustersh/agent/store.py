"""The agent's job store: every job it was ever sent, its outcome, and its output.

``journal`` says durably which jobs are open or not acknowledged; ``jobs/<utc date>/<uuid>/job.json`` is what is
left of each job for ever, with its small output; a larger output lies beside it. All methods are for the reactor's
thread; whatever waits for a disk does so in the store's own threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ..group_commit import GroupCommit
from ..wire.jobs import Outcome, OutputSummary
from ..wire.link import MAX_CHUNK, Ended, Witness
from ..wire.output import Stream
from ..wire.problems import Kind
from .disk import Disk, SpaceWatch
from .filing import Filing
from .job_files import JobFiles
from .journal import Item, Journal
from .open_jobs import OpenJob, replay
from .output_file import GrowingOutput
from .output_read import InlineOutput, Output, OutputPart, Part, read_head, tail_window
from .output_recovery import recover
from .output_writer import OutputWriter
from .records import (
    AcknowledgedEntry,
    EndedEntry,
    Entry,
    JobEnd,
    JobKnownError,
    JobRecord,
    ProcessEntry,
    ProcessMark,
    RefusedEntry,
    RunningEntry,
    StoredJob,
    StoreError,
)
from .store_folder import open_folder

THREADS = 4

Readable: TypeAlias = tuple[Output, bool]
"""An output, and whether it grows no more."""
_log = Logger()


class JobStore:
    """The jobs in *folder*. *now* gives wall-clock seconds; *reserve* is the free space (bytes) that output leaves."""

    def __init__(
        self, reactor: Any, folder: Path, *, reserve: int, now: Callable[[], float], disk: Disk | None = None
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._now = now
        self._disk = disk or Disk()
        self._space = SpaceWatch(self._disk, folder, reserve)
        self._files = JobFiles(folder / "jobs", self._disk)
        self._journal = Journal(folder, self._disk, self._rotated)
        self._commits: GroupCommit[Item, None] = GroupCommit(reactor, "journal", self._journal.append)
        self._pool = ThreadPool(0, THREADS, name="job-store")
        self._jobs: dict[str, OpenJob] = {}
        self._filing = Filing(reactor, self._files, self._in_thread, self._let_go)
        self._settling: Deferred[None] | None = None
        self._opened = False
        self._store_id = ""

    @property
    def store_id(self) -> str:
        """The store's random id; a new one when its jobs are gone. Known once opened."""
        return self._store_id

    async def open(self) -> list[StoredJob]:
        """Read the journal and start; return the jobs that were running when the last agent stopped.

        Each of them is to be ended by `end` (what it printed until then is recovered). Raises StoreError, HomeError.
        """
        self._pool.start()
        try:
            self._store_id, entries = await self._in_thread(open_folder, self._folder, self._files, self._journal)
            self._jobs = replay(entries)
            ended = [job for job in self._jobs.values() if job.end is not None]
            await self._filing.repair(ended)
        except BaseException:
            self._pool.stop()
            raise
        self._opened = True
        for job in ended:
            self._let_go(job)
        self._commits.start()
        await self._commits.in_thread(self._journal.tidy)
        return [job.stored() for job in self._jobs.values() if job.end is None]

    async def close(self) -> None:
        """Write what waits and end the threads."""
        if not self._opened:
            return
        self._opened = False
        await self._filing.idle()
        if self._settling is not None:
            await self._settling
        await self._commits.stop()
        self._pool.stop()
        self._journal.close()

    async def begin(self, record: JobRecord) -> None:
        """Journal that the job runs; durable when this returns. Raises JobKnownError, StoreError."""
        await self._add(OpenJob(record.uuid, record), RunningEntry(record))

    def note_process(self, uuid: str, mark: ProcessMark) -> None:
        """Journal which process the job is, with the next record that is made durable."""
        self._open_job(uuid).mark = mark
        self._note(uuid, ProcessEntry(uuid, mark))

    def output(
        self,
        uuid: str,
        on_pressure: Callable[[bool], None] | None = None,
        on_cut: Callable[[str], None] | None = None,
    ) -> OutputWriter:
        """Return where the begun job's output goes; the same one, with its first callbacks, when asked again.

        *on_pressure*: see `OutputWriter.write`. *on_cut* is told once why the rest of the output is dropped.
        """
        job = self._open_job(uuid)
        if job.writer is None:
            job.writer = OutputWriter(
                self._reactor,
                self._in_thread,
                GrowingOutput(self._files.of(uuid), self._disk, self._space),
                on_grown=job.tell_readers,
                on_pressure=on_pressure,
                on_cut=on_cut,
            )
        return job.writer

    async def end(self, uuid: str, outcome: Outcome, duration_s: float) -> Ended:
        """Finish the job's output, journal its outcome durably, and return what the coordinator is told.

        Ending it again returns the first outcome. After a StoreError the job is still open: try again later.
        """
        job = self._jobs.get(uuid)
        if job is not None:
            async with job.lock:
                if job.end is None:
                    await self._end(job, outcome, duration_s)
        ended = await self.ended(uuid)
        assert ended is not None
        return ended

    async def refuse(self, uuid: str, outcome: Outcome, witness: Witness | None = None) -> Ended:
        """Journal durably that the job never starts here; a later `begin` raises JobKnownError.

        Raises JobKnownError if it is known already, StoreError.
        """
        end = JobEnd(outcome, at=self._now())
        job = OpenJob(uuid, end=end)
        await self._add(job, RefusedEntry(uuid, end, witness))
        self._filing.add(job)
        return Ended(uuid, outcome)

    def has(self, uuid: str) -> bool:
        """Whether the job was ever begun or refused here. Raises StoreError where *uuid* is no UUIDv7."""
        return uuid in self._jobs or self._files.has(uuid)

    def running(self) -> tuple[str, ...]:
        """The jobs that have not ended."""
        return tuple(job.uuid for job in self._jobs.values() if job.end is None)

    async def get(self, uuid: str) -> StoredJob:
        """Return the job. Raises StoreError: UNKNOWN_RUN, or STORAGE where it is damaged."""
        job = self._jobs.get(uuid)
        if job is not None:
            return job.stored()
        stored: StoredJob = await self._in_thread(self._files.load, uuid)
        return stored

    async def last_trace(self, uuid: str) -> float:
        """Return when an earlier agent is last known to have lived while the job ran (wall-clock seconds)."""
        written: float = await self._in_thread(self._files.last_trace, uuid)
        return max(written, self._journal.last_trace)

    async def ended(self, uuid: str) -> Ended | None:
        """Return what the coordinator is told of the job, None while it runs. Raises StoreError as `get`."""
        end = (await self.get(uuid)).end
        if end is None:
            return None
        head = Part(end.data, end.runs)
        if not end.inline:
            try:
                head = await self._in_thread(read_head, self._files.output(uuid, end))
            except StoreError as error:
                _log.warn("job {uuid}: {reason}", uuid=uuid, reason=str(error))
        return Ended(uuid, end.outcome, end.output, end.duration_s, head.data, head.runs)

    def unacknowledged(self) -> tuple[str, ...]:
        """The jobs whose end is durable but not known to be in the ledger, oldest first."""
        waiting = [job for job in self._jobs.values() if job.end is not None and job.added and not job.acknowledged]
        return tuple(job.uuid for job in sorted(waiting, key=lambda job: job.end.at if job.end else 0.0))

    def acknowledged(self, uuid: str, witness: Witness) -> None:
        """The job's end is in the ledger; it is not reported any more. An unknown job is no matter."""
        job = self._jobs.get(uuid)
        if job is not None and job.end is not None and not job.acknowledged:
            job.acknowledged = True
            self._note(uuid, AcknowledgedEntry(uuid, witness))
            self._let_go(job)

    async def read(self, uuid: str, stream: Stream, offset: int, length: int) -> OutputPart:
        """Return up to *length* bytes (at most MAX_CHUNK) of the stream; of a live job, what reached the disk.

        That is some 100 ms behind. Raises StoreError.
        """
        if offset < 0 or length < 0:
            raise StoreError(Kind.BAD_REQUEST, "an offset or length is not negative", started=None)
        known, length = self._known_output(uuid), min(length, MAX_CHUNK)
        part: OutputPart = await self._in_thread(self._read, uuid, known, stream, offset, length)
        return part

    def wait_for_more(self, uuid: str, offset: int, stream: Stream) -> Deferred[None]:
        """Fire when the stream goes past *offset* or has ended; may be cancelled."""
        job = self._jobs.get(uuid)
        return succeed(None) if job is None else job.wait_for_more(stream, offset)

    async def tail_offset(self, uuid: str, stream: Stream, lines: int) -> int:
        """Return where the stream's last *lines* lines begin; an unfinished last line counts. Raises StoreError."""
        output, _ = self._known_output(uuid) or (await self._in_thread(self._files.ended_output, uuid), True)
        size = position = output.sizes.of(stream)
        if lines <= 0:
            return size
        while position > 0:
            start, missing = await self._in_thread(tail_window, output, stream, position, size, lines)
            if not missing:
                return int(start)
            position, lines = start, missing
        return 0

    def free_space_problem(self) -> str:
        """Say why no job may start now, such as a full disk; empty where one may. Looked at once a second at most."""
        return self._space.problem()

    # -- the journal

    async def _add(self, job: OpenJob, entry: Entry) -> None:
        """Make a new job known: at once to those who ask, and durably when this returns."""
        if self.has(job.uuid):
            raise JobKnownError(job.uuid)
        self._jobs[job.uuid] = job
        try:
            await self._append(job.uuid, entry)
        except BaseException:
            del self._jobs[job.uuid]
            raise
        job.added = True

    async def _append(self, uuid: str, entry: Entry) -> None:
        if not self._opened:
            raise StoreError(Kind.UNAVAILABLE, "the agent is stopping", uuid=uuid)
        await self._commits.submit(Item(uuid, msgspec.json.encode(entry) + b"\n", durable=True))

    def _note(self, uuid: str, entry: Entry | None) -> None:
        """Journal *entry* with the next batch, or soon; nobody waits. None: the job's lines matter no more."""
        line = b"" if entry is None else msgspec.json.encode(entry) + b"\n"
        if self._opened:
            self._commits.submit_later(Item(uuid, line, forget=entry is None)).addErrback(
                lambda failure: _log.warn("job {uuid}: {reason}", uuid=uuid, reason=failure.getErrorMessage())
            )

    def _rotated(self, forgotten: list[str]) -> None:
        """In the journal's thread: let the old journal go once the jobs that only it holds are durable."""
        self._reactor.callFromThread(self._settle_soon, forgotten)

    def _settle_soon(self, forgotten: list[str]) -> None:
        if self._opened:
            self._settling = Deferred.fromCoroutine(self._settle(forgotten))

    async def _settle(self, forgotten: list[str]) -> None:
        durable = True
        try:
            await self._in_thread(self._files.make_durable, forgotten)
        except OSError as error:
            _log.warn("the journal can't be shortened yet: {reason}", reason=str(error))
            durable = False
        await self._commits.in_thread(lambda: self._journal.settled(durable))

    # -- the ends of jobs

    def _open_job(self, uuid: str) -> OpenJob:
        job = self._jobs.get(uuid)
        if job is None or job.end is not None:
            raise StoreError(Kind.NOT_RUNNING, f"the job {uuid} is not running", uuid=uuid)
        return job

    async def _end(self, job: OpenJob, outcome: Outcome, duration_s: float) -> None:
        data = runs = b""
        if job.writer is not None:
            summary = await job.writer.finish()
            data, runs = job.writer.inline or (b"", b"")
        elif job.left_over:
            summary = await self._in_thread(recover, self._files.of(job.uuid), self._disk)
        else:
            summary = OutputSummary()
        end = JobEnd(outcome, self._now(), summary, duration_s, data, runs).or_cut()
        await self._append(job.uuid, EndedEntry(job.uuid, end))
        job.end, job.writer = end, None
        job.tell_readers()
        self._filing.add(job)

    def _let_go(self, job: OpenJob) -> None:
        """Forget a job of which nothing more is to be done: its ``job.json`` has it."""
        if job.acknowledged and job.written and self._jobs.pop(job.uuid, None) is not None:
            self._note(job.uuid, None)

    # -- reading

    def _known_output(self, uuid: str) -> Readable | None:
        """Return the output of a job that is in memory; None where only its files know it."""
        job = self._jobs.get(uuid)
        if job is None:
            return None
        if job.end is not None:
            return self._files.output(uuid, job.end), True
        if job.writer is not None:
            return job.writer.output, job.writer.finished
        return InlineOutput(b"", b""), False

    def _read(self, uuid: str, known: Readable | None, stream: Stream, offset: int, length: int) -> OutputPart:
        """Read in a thread, in one turn there for each piece."""
        output, ended = known or (self._files.ended_output(uuid), True)
        part = output.read(stream, offset, length)
        return OutputPart(offset, part.data, part.runs, output.sizes.of(stream), ended)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await deferToThreadPool(self._reactor, self._pool, function, *args)
