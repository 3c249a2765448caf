"""Ended jobs on their way to their ``job.json``, those of a moment in one turn of a thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .job_files import JobFiles
from .open_jobs import OpenJob
from .records import StoredJob

FILE_AFTER_S = 0.1
"""Seconds in which ended jobs come together."""
_log = Logger()


class Filing:
    """Writes what it is given; *on_filed* gets each job then. What fails is tried again with the next one."""

    def __init__(
        self,
        reactor: Any,
        files: JobFiles,
        in_thread: Callable[..., Awaitable[Any]],
        on_filed: Callable[[OpenJob], None],
    ) -> None:
        self._reactor = reactor
        self._files = files
        self._in_thread = in_thread
        self._on_filed = on_filed
        self._waiting: dict[str, OpenJob] = {}
        self._writing: Deferred[None] | None = None

    async def repair(self, jobs: Sequence[OpenJob]) -> None:
        """See that each of *jobs* has its ``job.json``, whole."""
        failed = await self._in_thread(_write_all, self._files.repair, [job.stored() for job in jobs])
        for job in jobs:
            job.written = job.uuid not in failed
            if not job.written:
                self._waiting[job.uuid] = job

    def add(self, job: OpenJob) -> None:
        """Write the ended *job* in a moment; the journal has it until then."""
        self._waiting[job.uuid] = job
        if self._writing is None:
            self._writing = Deferred.fromCoroutine(self._write())

    async def idle(self) -> None:
        """Return when nothing is being written."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        failed: set[str] = set()
        while self._waiting.keys() - failed:
            await deferLater(self._reactor, FILE_AFTER_S)
            waiting = [job for job in self._waiting.values() if job.uuid not in failed]
            failed |= await self._in_thread(_write_all, self._files.write, [job.stored() for job in waiting])
            for job in waiting:
                if job.uuid not in failed:
                    del self._waiting[job.uuid]
                    job.written = True
                    self._on_filed(job)
        self._writing = None


def _write_all(write: Callable[[StoredJob], None], jobs: Sequence[StoredJob]) -> set[str]:
    failed: set[str] = set()
    for job in jobs:
        try:
            write(job)
        except OSError as error:
            failed.add(job.uuid)
            _log.warn("job {uuid} can't be filed yet: {reason}", uuid=job.uuid, reason=str(error))
    return failed
