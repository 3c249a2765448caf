"""The ledger: append-only JSON lines, each carrying the SHA-256 of the one before, across files.

``ledger/<first seq>-<utc date>.jsonl``; the order is the sequence's, the date only a label. It is the only truth:
the index and the trusted list are projections of it. Everything that waits for an append shares one fsync.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..faultpoints import reached
from ..group_commit import GroupCommit, StoppedError
from ..home import private_folder, sync_folder, write_private
from ..wire.link import Witness
from ..wire.problems import Kind, ProblemError
from ..wire.units import timestamp
from .records import (
    FIRST_PREV,
    Envelope,
    Record,
    Repaired,
    RunRefused,
    RunRequested,
    read_envelope,
    read_record,
    to_line,
)

MAX_FILE = 64 << 20
MAX_LINE = 8 << 20


class LedgerBroken(Exception):
    """The ledger can't be trusted as it is; the message names the file and what to do."""


@dataclass(frozen=True)
class Entry:
    """A durable record: its place in the chain, and where its line ends."""

    seq: int
    hash: str
    time: str
    file: str
    end: int
    record: Record
    line: bytes


@dataclass(frozen=True)
class Head:
    """The last durable record; *file* and *end* are where the next line goes."""

    seq: int = 0
    hash: str = FIRST_PREV
    file: str = ""
    end: int = 0

    @property
    def witness(self) -> Witness:
        return Witness(self.seq, self.hash)


class Ledger:
    """Appends records and reads them again; *now* returns seconds since 1970.

    With less than *reserve* bytes free no new run is recorded, so that outcomes and revocations still can be.
    """

    def __init__(self, reactor: Any, folder: Path, now: Callable[[], float], reserve: int = 0) -> None:
        self._log = Logger()
        self._folder = private_folder(folder)
        self._now = now
        self._reserve = reserve
        self._head = Head()
        self._descriptor: int | None = None
        self._followers: list[Callable[[Entry], None]] = []
        self._broken_off = False
        self._torn: tuple[Path, int] | None = None
        self._writer: GroupCommit[Record, Entry] = GroupCommit(reactor, "ledger", self._write_batch)

    @property
    def head(self) -> Head:
        """The last durable record's place."""
        return self._head

    def open(self) -> None:
        """Find the head, repairing a torn tail (blocking; before start). Raises LedgerBroken."""
        files = self.files()
        if not files:
            return
        self._head, cut = _find_head(files)
        if cut:
            self._repair(files[-1], cut)

    def start(self) -> None:
        """Start the writer's thread."""
        self._writer.start()

    def subscribe(self, follower: Callable[[Entry], None]) -> None:
        """Have *follower* called with every entry, in order, once it is durable and before its waiter hears of it."""
        self._followers.append(follower)

    def append(self, record: Record) -> Deferred[Entry]:
        """Fires once *record* is durable; fails with ProblemError (storage) where it can't be made so.

        Giving up the waiting does not take the record back, nor keep it from the followers.
        """
        waiter: Deferred[Entry] = Deferred()
        written = self._writer.submit(record)
        written.addCallbacks(self._announce, _stopping)
        written.addBoth(_pass_on, waiter)
        return waiter

    def _announce(self, entry: Entry) -> Entry:
        for follower in self._followers:
            follower(entry)
        return entry

    async def stop(self) -> None:
        """Write what waits and close the file."""
        await self._writer.stop()
        self._close()

    def files(self) -> list[Path]:
        """The ledger's files, oldest first."""
        return sorted(self._folder.glob("*.jsonl"), key=lambda path: int(path.name.partition("-")[0]))

    def read(self, after: Head | None = None) -> Iterator[Entry]:
        """Yield the entries that follow *after* (blocking: for a thread). Raises LedgerBroken at the first bad one."""
        start = after or Head()
        previous, expected = start.hash, start.seq + 1
        for path in self.files():
            if start.file and int(path.name.partition("-")[0]) < int(start.file.partition("-")[0]):
                continue
            offset = start.end if path.name == start.file else 0
            for line, end in _lines(path, offset):
                entry = _check(path, line, end, expected, previous)
                yield entry
                previous, expected = entry.hash, entry.seq + 1

    def read_until(self, head: Head) -> Iterator[Entry]:
        """Yield every entry up to *head* (blocking): what comes after may still be on its way to the disk."""
        for entry in self.read() if head.seq else ():
            yield entry
            if entry.seq >= head.seq:
                return

    # -- in the writer's thread

    def _write_batch(self, records: Sequence[Record]) -> Sequence[Entry]:
        try:
            self._check_space(records)
            self._cut_back()
            return self._write(records)
        except OSError as error:
            self._abandon_file()
            self._log.error("can't write the ledger: {reason}", reason=error.strerror)
            raise _storage_problem(error.strerror) from error

    def _write(self, records: Sequence[Record]) -> list[Entry]:
        moment = timestamp(self._now())
        head = self._head
        descriptor, file, end = self._file_for(moment[:10])
        entries, lines = [], bytearray()
        for record in records:
            line = to_line(Envelope(head.seq + 1, moment, head.hash), record)
            lines += line + b"\n"
            head = Head(head.seq + 1, hashlib.sha256(line).hexdigest(), file, end + len(lines))
            entries.append(Entry(head.seq, head.hash, moment, file, head.end, record, line))
        self._torn = (self._folder / file, end)
        view = memoryview(lines)
        while view:
            view = view[os.write(descriptor, view) :]
        reached("ledger-written")
        os.fsync(descriptor)
        reached("ledger-synced")
        self._torn = None
        self._head = head
        return entries

    def _check_space(self, records: Sequence[Record]) -> None:
        """Leave the last of the disk to what must always work: outcomes, and taking trust away."""
        only_runs = all(isinstance(record, RunRequested | RunRefused) for record in records)
        if only_runs and self._reserve and shutil.disk_usage(self._folder).free < self._reserve:
            raise _storage_problem("less space is left than [coordinator] reserve")

    def _file_for(self, date: str) -> tuple[int, str, int]:
        """Return the descriptor, name and length of the file that the next line goes to."""
        head = self._head
        fits = head.file.endswith(f"-{date}.jsonl") and head.end < MAX_FILE and not self._broken_off
        if fits and self._descriptor is not None:
            return self._descriptor, head.file, head.end
        self._close()
        name, end = (head.file, head.end) if fits else (f"{head.seq + 1:012d}-{date}.jsonl", 0)
        self._descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sync_folder(self._folder)
        self._broken_off = False
        return self._descriptor, name, end

    def _abandon_file(self) -> None:
        """After a failed append the next goes to a new file."""
        self._close()
        self._broken_off = True

    def _cut_back(self) -> None:
        """Take away what a failed append left behind: nothing may follow the last durable line."""
        if self._torn is not None:
            path, end = self._torn
            if end:
                _cut(path, end)
            else:
                path.unlink(missing_ok=True)
            self._torn = None

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _repair(self, path: Path, cut: int) -> None:
        """Cut *cut* bytes that are no whole record, keep them beside it, and say so in the ledger."""
        content = path.read_bytes()
        kept = path.with_name(f"{path.name}.torn-{self._head.seq + 1}")
        write_private(kept, content[len(content) - cut :])
        if cut == len(content):
            path.unlink()
        else:
            _cut(path, len(content) - cut)
        self._log.warn("{file}: {cut} torn bytes cut, kept in {kept}", file=path.name, cut=cut, kept=kept.name)
        self._broken_off = True
        self._write([Repaired(path.name, cut, kept.name)])


def _cut(path: Path, end: int) -> None:
    """Shorten *path* to *end* bytes, durably: the rest must not come back when more has followed in another file."""
    with path.open("rb+") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def _storage_problem(reason: str | None) -> ProblemError:
    return ProblemError(
        Kind.STORAGE,
        f"the coordinator can't write its ledger: {reason}",
        hint="free some space on the coordinator's disk, then ask again",
    )


def _stopping(failure: Failure) -> Failure:
    """Return what is told of a record that came too late."""
    if failure.check(StoppedError) is None:
        return failure
    return Failure(ProblemError(Kind.UNAVAILABLE, "the coordinator is stopping", hint="ask again when it is back"))


def _pass_on(result: Entry | Failure, waiter: Deferred[Entry]) -> None:
    if not waiter.called:
        waiter.callback(result) if isinstance(result, Entry) else waiter.errback(result)


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield (line without newline, offset after it); a last one without a newline is yielded as it is."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(MAX_LINE):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset


def _check(path: Path, line: bytes, end: int, expected: int, previous: str) -> Entry:
    try:
        envelope, record = read_envelope(line), read_record(line)
    except msgspec.DecodeError as error:
        raise LedgerBroken(f"{path}: record {expected} can't be read: {error}") from error
    if envelope.seq != expected:
        raise LedgerBroken(f"{path}: record {expected} is missing ({envelope.seq} is there)")
    if envelope.prev != previous:
        raise LedgerBroken(f"{path}: record {expected - 1} is not the one that record {expected} was chained to")
    return Entry(expected, hashlib.sha256(line).hexdigest(), envelope.time, path.name, end, record, line)


def _find_head(files: list[Path]) -> tuple[Head, int]:
    """Return the last whole record's place, and how many bytes at the end of the last file are torn."""
    head, cut = _last_record(files[-1])
    if not head.seq and len(files) > 1:
        head, earlier_cut = _last_record(files[-2])
        if earlier_cut:
            raise _damaged(files[-2])
    return head, cut


def _last_record(path: Path) -> tuple[Head, int]:
    """Return the last whole record in *path* and how many torn bytes follow it.

    A bad line followed by a whole one is damage, not a torn tail, and never repaired by itself.
    """
    content = path.read_bytes()
    head, start, bad = Head(), 0, False
    while (newline := content.find(b"\n", start)) >= 0:
        line, start = content[start:newline], newline + 1
        try:
            envelope = read_envelope(line)
        except msgspec.DecodeError:
            bad = True
            continue
        if bad:
            raise _damaged(path)
        head = Head(envelope.seq, hashlib.sha256(line).hexdigest(), path.name, start)
    return head, len(content) - head.end


def _damaged(path: Path) -> LedgerBroken:
    return LedgerBroken(
        f"{path} has a damaged record before whole ones, which is never repaired by itself: "
        "restore the file from a backup"
    )
