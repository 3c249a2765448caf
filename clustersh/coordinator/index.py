"""``index.sqlite``: what the ledger adds up to, for questions. A projection, rebuilt where it is missing.

All of it happens in one thread, in order, so a question sees whatever was recorded before it was asked. The place in
the ledger (file, offset, hash) that it has come to is committed together with what it made of it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.logger import Logger

from ..group_commit import GroupCommit
from ..wire.problems import Kind, ProblemError
from .ledger import Ledger
from .ledger_files import Entry, Head
from .projection import SCHEMA, SCHEMA_VERSION, project
from .records import RunRefused, RunRequested

T = TypeVar("T")
Question = Callable[[sqlite3.Connection], T]

_CATCH_UP = 1_000
"""Entries that are taken in at a time by an index that is behind."""
_PROGRESS_EVERY = 100_000


@dataclass(frozen=True)
class _Arrived:
    """An entry that has become durable."""

    entry: Entry


class Index:
    """Follows *ledger* and answers questions about it."""

    def __init__(self, reactor: Any, path: Path, ledger: Ledger) -> None:
        self._log = Logger()
        self._path = path
        self._ledger = ledger
        self._connection: sqlite3.Connection | None = None
        self._fresh_keys: set[tuple[str, str]] = set()
        self._worker: GroupCommit[Question[Any] | _Arrived, Any] = GroupCommit(reactor, "index", self._answer_batch)

    def start(self) -> None:
        """Start its thread."""
        self._worker.start()

    async def ask(self, question: Question[T]) -> T:
        """Return *question*'s answer, as of everything that the ledger held when it was asked.

        Raises what the question does, and ProblemError (storage) where the index can't be used now.
        """
        return cast(T, await self._answered(self._worker.submit(question)))

    async def ask_of_key(self, client_id: str, key: str, question: Question[T]) -> T:
        """Return the answer to a *question* that is about that idempotency key alone, and only reads.

        Every run begins with it, so it doesn't wait until the runs of the last moment are taken in, unless that key is
        theirs: else each would take a transaction of its own. Raises as `ask`.
        """
        if (client_id, key) in self._fresh_keys:
            return await self.ask(question)
        looking = self._worker.in_thread(lambda: self._answer_one(question))
        return cast(T, await self._answered(looking))

    async def _answered(self, work: Awaitable[Any]) -> Any:
        try:
            answer = await work
        except (sqlite3.Error, OSError) as error:
            self._log.error("the index can't be used: {reason}", reason=str(error))
            raise ProblemError(
                Kind.STORAGE,
                f"the coordinator can't use its index: {error}",
                hint="free some space on the coordinator's disk, then ask again",
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, entry: Entry) -> None:
        """Take in *entry*, which has just become durable: before the next question, and soon without one."""
        applied = self._worker.submit_later(_Arrived(entry))
        record = entry.record
        if isinstance(record, RunRequested | RunRefused):
            key = record.client_id, record.key
            self._fresh_keys.add(key)
            applied.addBoth(self._taken_in, key)
        applied.addErrback(self._late)

    def _taken_in(self, result: Any, key: tuple[str, str]) -> Any:
        """The index has it; or it failed, and has it before the next question."""
        self._fresh_keys.discard(key)
        return result

    async def stop(self) -> None:
        """Finish what was asked and close."""
        await self._worker.stop()
        if self._connection is not None:
            self._connection.close()

    # -- in its thread

    def _answer_batch(self, items: Sequence[Question[Any] | _Arrived]) -> Sequence[Any]:
        """Take in the entries and answer the questions, in their order."""
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            answers: list[Any] = []
            for kind, group in itertools.groupby(items, type):
                if kind is _Arrived:
                    entries = [cast(_Arrived, each).entry for each in group]
                    _apply(connection, entries)
                    answers += [None] * len(entries)
                else:
                    answers += [_answer(connection, cast(Question[Any], each)) for each in group]
            connection.execute("COMMIT")
        except BaseException:
            self._close()
            raise
        return answers

    def _answer_one(self, question: Question[T]) -> T | Exception:
        """Answer a question that only reads, from what was taken in so far."""
        try:
            return cast(T | Exception, _answer(self._open(), question))
        except BaseException:
            self._close()
            raise

    def _open(self) -> sqlite3.Connection:
        """Return the connection, made or mended and caught up with the ledger when it has to be."""
        if self._connection is None:
            try:
                self._connection = _connect(self._path)
                self._catch_up(self._connection)
            except (sqlite3.DatabaseError, _Astray) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._log.warn("the index does not fit the ledger ({reason}); making it anew", reason=str(error))
                self._close()
                _remove(self._path)
                self._connection = _connect(self._path)
                self._catch_up(self._connection)
        return self._connection

    def _close(self) -> None:
        """Let go of the database; what was not committed is undone. The next question opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        place, head = _place(connection), self._ledger.head
        if place.seq > head.seq:
            raise _Astray(f"it is at record {place.seq}, the ledger at {head.seq}")
        if place.seq == head.seq:
            if place.hash != head.hash:
                raise _Astray("it was made of another ledger")
            return
        connection.execute("BEGIN IMMEDIATE")
        for entries in _batches(self._ledger.read(place), head.seq):
            _apply(connection, entries)
            if entries[-1].seq % _PROGRESS_EVERY < len(entries):
                self._log.info("index: {seq} of {head} records", seq=entries[-1].seq, head=head.seq)
        connection.execute("COMMIT")

    def _late(self, failure: Any) -> None:
        """An entry could not be taken in; the next question opens the index again, which catches up."""
        self._log.error("the index is behind the ledger: {reason}", reason=failure.getErrorMessage())


class _Astray(Exception):
    """The index was not made of this ledger."""


def _batches(entries: Iterator[Entry], last: int) -> Iterator[list[Entry]]:
    """Yield *entries* up to the one numbered *last*, some at a time; what follows may still be on its way."""
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if entry.seq == last or len(batch) == _CATCH_UP:
            yield batch
            batch = []
        if entry.seq == last:
            return


def _apply(connection: sqlite3.Connection, entries: list[Entry]) -> None:
    """Take in *entries*, which follow each other; those that it has already are passed over."""
    place = _place(connection)
    new = [entry for entry in entries if entry.seq > place.seq]
    if not new:
        return
    if new[0].seq != place.seq + 1:
        raise _Astray(f"it is at record {place.seq} and was told of {new[0].seq}")
    project(connection, new)
    last = new[-1]
    connection.execute(
        "UPDATE place SET seq = ?, hash = ?, file = ?, end = ?", (last.seq, last.hash, last.file, last.end)
    )


def _answer(connection: sqlite3.Connection, question: Question[Any]) -> Any:
    """Answer one question; its own mistakes are its asker's, the database's are everybody's."""
    try:
        return question(connection)
    except (sqlite3.OperationalError, sqlite3.DatabaseError, _Astray):
        raise
    except Exception as error:
        return error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    path.chmod(0o600)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    elif version != SCHEMA_VERSION:
        connection.close()
        raise _Astray(f"it is of version {version}")
    return connection


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def _place(connection: sqlite3.Connection) -> Head:
    row = connection.execute("SELECT seq, hash, file, end FROM place").fetchone()
    return Head(row["seq"], row["hash"], row["file"], row["end"])
