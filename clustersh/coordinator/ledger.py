"""The ledger: append-only JSON lines, each carrying the SHA-256 of the one before, across files.

``ledger/<first seq>-<utc date>.jsonl``; the order is the sequence's, the date only a label. It is the only truth:
the index and the trusted list are projections of it. Everything that waits for an append shares one fsync.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..faultpoints import reached
from ..group_commit import GroupCommit, StoppedError
from ..home import private_folder, sync_folder, write_private
from ..wire.problems import Kind, ProblemError
from ..wire.units import timestamp
from .ledger_files import Entry, Head, cut_file, find_head, first_seq, read, read_record_at
from .records import (
    BatchBegun,
    Envelope,
    Forgotten,
    Record,
    Repaired,
    Revoked,
    RunRefused,
    RunRequested,
    to_line,
)
from .spare import Spare

MAX_FILE = 64 << 20
_STARTING = (RunRequested, RunRefused, BatchBegun)
_ENDING_TRUST = (Revoked, Forgotten)


class Ledger:
    """Appends records and reads them again; *now* returns seconds since 1970.

    With less than *reserve* bytes free no new run or batch is recorded, so that outcomes and revocations still can be.
    Where somebody else fills the disk, a file beside the ledger is given up for what takes trust away.
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
        self._spare = Spare(self._folder / "spare")
        self._writer: GroupCommit[Record, Entry | ProblemError] = GroupCommit(reactor, "ledger", self._write_batch)

    @property
    def head(self) -> Head:
        """The last durable record's place."""
        return self._head

    def moment(self) -> str:
        """Return the time as records tell it."""
        return timestamp(self._now())

    def open(self) -> None:
        """Find the head, repairing a torn tail (blocking; before start). Raises LedgerBroken."""
        self._head, torn, cut = find_head(self.files())
        if torn is not None:
            self._repair(torn, cut)
        self._spare.keep()

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
        announced = self._writer.submit(record).addCallbacks(self._announce, _stopping)
        announced.addBoth(_pass_on, waiter)
        return waiter

    def _announce(self, written: Entry | ProblemError) -> Entry:
        if isinstance(written, ProblemError):
            raise written
        for follower in self._followers:
            follower(written)
        return written

    async def stop(self) -> None:
        """Write what waits and close the file."""
        await self._writer.stop()
        self._close()

    def files(self) -> list[Path]:
        """The ledger's files, oldest first."""
        return sorted(self._folder.glob("*.jsonl"), key=lambda path: first_seq(path.name))

    def read(self, after: Head | None = None) -> Iterator[Entry]:
        """Yield the entries that follow *after* (blocking: for a thread). Raises LedgerBroken at the first bad one."""
        return read(self.files(), after or Head())

    def record_at(self, file: str, offset: int) -> Record:
        """Return the record whose line begins at *offset* of *file* (blocking). Raises LedgerBroken, OSError."""
        return read_record_at(self._folder / file, offset)

    def read_until(self, head: Head) -> Iterator[Entry]:
        """Yield every entry up to *head* (blocking): what comes after may still be on its way to the disk."""
        for entry in self.read() if head.seq else ():
            yield entry
            if entry.seq >= head.seq:
                return

    # -- in the writer's thread

    def _write_batch(self, records: Sequence[Record]) -> Sequence[Entry | ProblemError]:
        """Write what the disk lets us; what can't be made durable has a problem in its entry's place."""
        results: list[Entry | ProblemError | None] = [None] * len(records)
        if no_runs := self._is_tight(records):
            _fill(results, records, _STARTING, _storage_problem(no_runs))
        error = self._try(records, results)
        if error is None:
            self._spare.keep()
        elif error.errno in (errno.ENOSPC, errno.EDQUOT) and any(isinstance(each, _ENDING_TRUST) for each in records):
            error = self._try_with_spare(records, results, error)
        return [result or _storage_problem(error.strerror if error else None) for result in results]

    def _try(self, records: Sequence[Record], results: list[Entry | ProblemError | None]) -> OSError | None:
        """Write the records that have no result yet; return why that failed, if it did."""
        todo = [number for number, result in enumerate(results) if result is None]
        try:
            self._cut_back()
            for number, entry in zip(todo, self._write([records[number] for number in todo]), strict=True):
                results[number] = entry
        except OSError as error:
            self._log.error("can't write the ledger: {reason}", reason=error.strerror)
            self._abandon_file()
            return error
        return None

    def _try_with_spare(
        self, records: Sequence[Record], results: list[Entry | ProblemError | None], error: OSError
    ) -> OSError | None:
        """Write what takes trust away, and nothing else, in the space that was kept for it."""
        if not self._spare.give_up():
            return error
        others = tuple({type(each) for each in records} - set(_ENDING_TRUST))
        _fill(results, records, others, _storage_problem(error.strerror))
        failed = self._try(records, results)
        self._spare.take_back()
        return failed

    def _write(self, records: Sequence[Record]) -> list[Entry]:
        if not records:
            return []
        moment = self.moment()
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

    def _is_tight(self, records: Sequence[Record]) -> str | None:
        """Return why the last of the disk is left to what always has to work: outcomes, and taking trust away."""
        if self._reserve and any(isinstance(record, _STARTING) for record in records):
            try:
                if shutil.disk_usage(self._folder).free < self._reserve:
                    return "less space is left than [coordinator] reserve"
            except OSError as error:
                return error.strerror
        return None

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
        with contextlib.suppress(OSError):
            self._cut_back()

    def _cut_back(self) -> None:
        """Take away, durably, what a failed append left behind: nothing may follow the last durable line."""
        if self._torn is not None:
            path, end = self._torn
            if end:
                cut_file(path, end)
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
            cut_file(path, len(content) - cut)
        self._log.warn("{file}: {cut} torn bytes cut, kept in {kept}", file=path.name, cut=cut, kept=kept.name)
        self._broken_off = True
        self._write([Repaired(path.name, cut, kept.name)])


def _fill(
    results: list[Entry | ProblemError | None],
    records: Sequence[Record],
    kinds: tuple[type[Record], ...],
    problem: ProblemError,
) -> None:
    """Let *problem* be the result of the records of these *kinds*."""
    for number, record in enumerate(records):
        if isinstance(record, kinds):
            results[number] = problem


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
