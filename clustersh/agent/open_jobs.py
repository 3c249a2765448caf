"""The jobs that the store keeps in memory: those that run, and those whose end is not filed or not acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, DeferredLock

from ..wire.output import Stream
from .journal import entry_uuid
from .output_writer import OutputWriter
from .records import (
    AcknowledgedEntry,
    EndedEntry,
    Entry,
    JobEnd,
    JobRecord,
    ProcessEntry,
    ProcessMark,
    RefusedEntry,
    RunningEntry,
    StoredJob,
)


@dataclass(slots=True, eq=False)
class OpenJob:
    """One of them. *added*: the journal has it; *written*: ``job.json`` too; *left_over*: an earlier agent's."""

    uuid: str
    record: JobRecord | None = None
    mark: ProcessMark | None = None
    end: JobEnd | None = None
    writer: OutputWriter | None = None
    added: bool = False
    written: bool = False
    acknowledged: bool = False
    left_over: bool = False
    lock: DeferredLock = field(default_factory=DeferredLock)
    readers: dict[Deferred[None], tuple[Stream, int]] = field(default_factory=dict)
    """Who waits for more: fires when the stream is longer than that."""

    def stored(self) -> StoredJob:
        """Return the job as it is written down."""
        return StoredJob(self.uuid, self.record, self.mark, self.end)

    def wait_for_more(self, stream: Stream, offset: int) -> Deferred[None]:
        """Fire when *stream* goes past *offset* or has ended; may be cancelled."""
        reader: Deferred[None] = Deferred(self._stop_waiting)
        self.readers[reader] = (stream, offset)
        self.tell_readers()
        return reader

    def tell_readers(self) -> None:
        """Fire those who wait for something that is there now."""
        done = self.end is not None or (self.writer is not None and self.writer.finished)
        for reader, (stream, offset) in list(self.readers.items()):
            longer = self.writer is not None and self.writer.sizes.of(stream) > offset
            if (done or longer) and self.readers.pop(reader, None) is not None:
                reader.callback(None)

    def _stop_waiting(self, reader: Deferred[None]) -> None:
        self.readers.pop(reader, None)


def replay(entries: Iterable[Entry]) -> dict[str, OpenJob]:
    """Return the jobs that *entries* tell of. Entries may come twice; the first end of a job counts."""
    jobs: dict[str, OpenJob] = {}
    for entry in entries:
        uuid = entry_uuid(entry)
        job = jobs.setdefault(uuid, OpenJob(uuid, added=True, left_over=True))
        match entry:
            case RunningEntry(record=record):
                job.record = record
            case ProcessEntry(mark=mark):
                job.mark = mark
            case EndedEntry(end=end) | RefusedEntry(end=end):
                job.end = job.end or end
            case AcknowledgedEntry():
                job.acknowledged = True
    return jobs
