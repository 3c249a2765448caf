"""``index.sqlite``: what the ledger adds up to, for questions. A projection, rebuilt where it is missing.

All of it happens in one thread, in order, so a question sees whatever was recorded before it was asked. The place in
the ledger (file, offset, hash) that it has come to is committed together with what it made of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from twisted.logger import Logger

from ..group_commit import GroupCommit
from ..wire.jobs import State
from ..wire.problems import Kind, ProblemError
from .ledger import Ledger
from .ledger_files import Entry, Head
from .records import (
    CancelRequested,
    Enrolled,
    Forgotten,
    JobEnded,
    Record,
    Revoked,
    RunRefused,
    RunRequested,
    StoreSeen,
)

T = TypeVar("T")
Question = Callable[[sqlite3.Connection], T]

SCHEMA_VERSION = 1
_SCHEMA = f"""
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER, hash TEXT, file TEXT, end INTEGER);
INSERT INTO place SELECT 1, 0, '{"0" * 64}', '', 0;
CREATE TABLE runs (
    uuid TEXT PRIMARY KEY, ending TEXT NOT NULL, client TEXT NOT NULL, client_id TEXT NOT NULL, key TEXT NOT NULL,
    digest TEXT NOT NULL, requested TEXT NOT NULL, target TEXT NOT NULL, command TEXT NOT NULL, cwd TEXT NOT NULL,
    timeout_s REAL NOT NULL, script TEXT NOT NULL, manifest TEXT NOT NULL, problem BLOB,
    UNIQUE (client_id, key)
) WITHOUT ROWID;
CREATE INDEX runs_by_ending ON runs (ending);
CREATE TABLE jobs (
    uuid TEXT NOT NULL, machine_id TEXT NOT NULL, machine TEXT NOT NULL, client TEXT NOT NULL, state TEXT NOT NULL,
    started TEXT NOT NULL DEFAULT '', finished TEXT NOT NULL DEFAULT '', duration_s REAL, exit_code INTEGER,
    signal INTEGER, reason TEXT, stdout_bytes INTEGER NOT NULL DEFAULT 0, stderr_bytes INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (uuid, machine_id)
) WITHOUT ROWID;
CREATE INDEX jobs_by_machine ON jobs (machine, uuid);
CREATE INDEX jobs_by_client ON jobs (client, uuid);
CREATE INDEX open_jobs ON jobs (state) WHERE state = 'requested';
CREATE TABLE keys (
    fingerprint TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL,
    enrolled TEXT NOT NULL, ended TEXT NOT NULL DEFAULT '', store TEXT NOT NULL DEFAULT '',
    new INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE seen (machine_id TEXT PRIMARY KEY, at REAL NOT NULL, facts BLOB NOT NULL, version TEXT NOT NULL,
    address TEXT NOT NULL) WITHOUT ROWID;
"""
_PROGRESS_EVERY = 100_000


class Index:
    """Follows *ledger* and answers questions about it."""

    def __init__(self, reactor: Any, path: Path, ledger: Ledger) -> None:
        self._log = Logger()
        self._path = path
        self._ledger = ledger
        self._connection: sqlite3.Connection | None = None
        self._worker: GroupCommit[Question[Any], Any] = GroupCommit(reactor, "index", self._answer_batch)

    def start(self) -> None:
        """Start its thread."""
        self._worker.start()

    async def ask(self, question: Question[T]) -> T:
        """Return *question*'s answer, as of everything that the ledger held when it was asked.

        Raises what the question does, and ProblemError (storage) where the index can't be used now.
        """
        try:
            answer = await self._worker.submit(question)
        except (sqlite3.Error, OSError) as error:
            self._log.error("the index can't be used: {reason}", reason=str(error))
            raise ProblemError(
                Kind.STORAGE,
                f"the coordinator can't use its index: {error}",
                hint="free some space on the coordinator's disk, then ask again",
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return cast(T, answer)

    def follow(self, entry: Entry) -> None:
        """Take in *entry*, which has just become durable: before the next question, and soon without one."""
        self._worker.submit_later(lambda connection: self._apply(connection, entry)).addErrback(self._late)

    async def stop(self) -> None:
        """Finish what was asked and close."""
        await self._worker.stop()
        if self._connection is not None:
            self._connection.close()

    # -- in its thread

    def _answer_batch(self, questions: Sequence[Question[Any]]) -> Sequence[Any]:
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            answers = [_answer(connection, question) for question in questions]
            connection.execute("COMMIT")
        except BaseException:
            self._close()
            raise
        return answers

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
        for entry in self._ledger.read(place):
            self._apply(connection, entry)
            if entry.seq % _PROGRESS_EVERY == 0:
                self._log.info("index: {seq} of {head} records", seq=entry.seq, head=head.seq)
            if entry.seq == head.seq:
                break
        connection.execute("COMMIT")

    def _apply(self, connection: sqlite3.Connection, entry: Entry) -> None:
        place = _place(connection)
        if entry.seq <= place.seq:
            return
        if entry.seq != place.seq + 1:
            raise _Astray(f"it is at record {place.seq} and was told of {entry.seq}")
        project(connection, entry)
        connection.execute(
            "UPDATE place SET seq = ?, hash = ?, file = ?, end = ?", (entry.seq, entry.hash, entry.file, entry.end)
        )

    def _late(self, failure: Any) -> None:
        """An entry could not be taken in; the next question opens the index again, which catches up."""
        self._log.error("the index is behind the ledger: {reason}", reason=failure.getErrorMessage())


class _Astray(Exception):
    """The index was not made of this ledger."""


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
        connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
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


def ending(uuid: str) -> str:
    """Return *uuid*'s hex digits backwards: so its end can be looked up by a prefix."""
    return uuid.replace("-", "")[::-1]


def project(connection: sqlite3.Connection, entry: Entry) -> None:
    """Enter what *entry* changes."""
    projection = _PROJECTIONS.get(type(entry.record))
    if projection is not None:
        projection(connection, entry, entry.record)


def _run_requested(connection: sqlite3.Connection, entry: Entry, record: RunRequested) -> None:
    script, files = record.command.script, record.files
    blobs = (script.sha256 if script else "", files.sha256 if files else "")
    _insert_run(connection, entry, record, (record.cwd, record.timeout_s, *blobs, None))
    connection.executemany(
        "INSERT INTO jobs (uuid, machine_id, machine, client, state) VALUES (?, ?, ?, ?, ?)",
        [(record.uuid, machine.id, machine.name, record.client, State.REQUESTED) for machine in record.machines],
    )
    connection.executemany("UPDATE keys SET new = 0 WHERE new AND id = ?", [(each.id,) for each in record.machines])


def _run_refused(connection: sqlite3.Connection, entry: Entry, record: RunRefused) -> None:
    _insert_run(connection, entry, record, ("", 0.0, "", "", msgspec.json.encode(record.problem)))


def _insert_run(
    connection: sqlite3.Connection, entry: Entry, record: RunRequested | RunRefused, rest: tuple[Any, ...]
) -> None:
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.uuid,
            ending(record.uuid),
            record.client,
            record.client_id,
            record.key,
            record.digest,
            entry.time,
            record.target,
            record.command.text,
            *rest,
        ),
    )


def _job_ended(connection: sqlite3.Connection, entry: Entry, record: JobEnded) -> None:
    outcome, output = record.outcome, record.output
    connection.execute(
        "UPDATE jobs SET state = ?, started = ?, finished = ?, duration_s = ?, exit_code = ?, signal = ?, reason = ?,"
        " stdout_bytes = ?, stderr_bytes = ? WHERE uuid = ? AND machine_id = ?",
        (
            outcome.state,
            record.started,
            entry.time,
            record.duration_s,
            outcome.exit_code,
            outcome.signal,
            outcome.reason,
            output.stdout_bytes,
            output.stderr_bytes,
            record.uuid,
            record.machine_id,
        ),
    )


def _cancel_requested(connection: sqlite3.Connection, entry: Entry, record: CancelRequested) -> None:
    connection.executemany(
        "UPDATE jobs SET cancelled = 1 WHERE uuid = ? AND machine_id = ?",
        [(record.uuid, machine.id) for machine in record.machines],
    )


def _enrolled(connection: sqlite3.Connection, entry: Entry, record: Enrolled) -> None:
    connection.execute(
        "INSERT INTO keys (fingerprint, role, name, id, address, enrolled, new) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name, address = excluded.address",
        (
            record.fingerprint,
            record.role,
            record.name,
            record.id,
            record.address,
            entry.time,
            record.approved_by == "open",
        ),
    )


def _key_ended(connection: sqlite3.Connection, entry: Entry, record: Revoked | Forgotten) -> None:
    connection.execute("UPDATE keys SET ended = ? WHERE fingerprint = ?", (entry.time, record.fingerprint))


def _store_seen(connection: sqlite3.Connection, entry: Entry, record: StoreSeen) -> None:
    connection.execute("UPDATE keys SET store = ? WHERE id = ?", (record.store, record.machine_id))


_PROJECTIONS: dict[type[Record], Callable[[sqlite3.Connection, Entry, Any], None]] = {
    RunRequested: _run_requested,
    RunRefused: _run_refused,
    JobEnded: _job_ended,
    CancelRequested: _cancel_requested,
    Enrolled: _enrolled,
    Revoked: _key_ended,
    Forgotten: _key_ended,
    StoreSeen: _store_seen,
}
