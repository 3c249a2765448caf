"""What each kind of record changes in the index, and the tables that it is kept in."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from ..wire.fleet import is_plain
from ..wire.jobs import State
from .ledger_files import Entry
from .records import (
    Accepted,
    BatchBegun,
    CancelRequested,
    Enrolled,
    Forgotten,
    GroupAdded,
    GroupDeleted,
    GroupRemoved,
    JobEnded,
    Labelled,
    Record,
    Renamed,
    Revoked,
    RunRefused,
    RunRequested,
    RunStopped,
    StoreSeen,
    TailnetSeen,
    TokenCreated,
    TokenRevoked,
    begins_new,
)

SCHEMA_VERSION = 6
SCHEMA = f"""
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER, hash TEXT, file TEXT, end INTEGER);
INSERT INTO place SELECT 1, 0, '{"0" * 64}', '', 0;
CREATE TABLE runs (
    uuid TEXT PRIMARY KEY, ending TEXT NOT NULL, client TEXT NOT NULL, client_id TEXT NOT NULL, key TEXT NOT NULL,
    digest TEXT NOT NULL, requested TEXT NOT NULL, target TEXT NOT NULL, command TEXT NOT NULL, cwd TEXT NOT NULL,
    timeout_s REAL NOT NULL, script TEXT NOT NULL, manifest TEXT NOT NULL, problem BLOB,
    exclude TEXT NOT NULL DEFAULT '', raw INTEGER NOT NULL DEFAULT 1, skipped TEXT NOT NULL DEFAULT '[]',
    selected TEXT NOT NULL DEFAULT '[]', stopped TEXT, paced_file TEXT, paced_offset INTEGER,
    left_out TEXT NOT NULL DEFAULT 'null',
    UNIQUE (client_id, key)
) WITHOUT ROWID;
CREATE INDEX runs_by_ending ON runs (ending);
CREATE TABLE jobs (
    uuid TEXT NOT NULL, machine_id TEXT NOT NULL, machine TEXT NOT NULL, client TEXT NOT NULL, state TEXT NOT NULL,
    started TEXT NOT NULL DEFAULT '', finished TEXT NOT NULL DEFAULT '', duration_s REAL, exit_code INTEGER,
    signal INTEGER, reason TEXT, stdout_bytes INTEGER NOT NULL DEFAULT 0, stderr_bytes INTEGER NOT NULL DEFAULT 0,
    stdout_sha256 TEXT NOT NULL DEFAULT '', stderr_sha256 TEXT NOT NULL DEFAULT '',
    cancelled INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0,
    begun INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (uuid, machine_id)
) WITHOUT ROWID;
CREATE INDEX jobs_by_machine ON jobs (machine, uuid);
CREATE INDEX jobs_by_client ON jobs (client, uuid);
CREATE INDEX open_jobs ON jobs (state) WHERE state = 'requested';
CREATE TABLE keys (
    fingerprint TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL,
    enrolled TEXT NOT NULL, ended TEXT NOT NULL DEFAULT '', store TEXT NOT NULL DEFAULT '',
    new INTEGER NOT NULL DEFAULT 0, ai INTEGER NOT NULL DEFAULT 0,
    tailnet_login TEXT NOT NULL DEFAULT '', tailnet_node TEXT NOT NULL DEFAULT '', carrier TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX keys_by_id ON keys (id);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, uses INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0, created TEXT NOT NULL,
    expires TEXT NOT NULL, revoked TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE members (name TEXT NOT NULL, machine_id TEXT NOT NULL, PRIMARY KEY (name, machine_id)) WITHOUT ROWID;
CREATE INDEX groups_of_machine ON members (machine_id);
CREATE TABLE labels (
    machine_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (machine_id, key)
) WITHOUT ROWID;
CREATE TABLE seen (machine_id TEXT PRIMARY KEY, at REAL NOT NULL, facts BLOB NOT NULL, version TEXT NOT NULL,
    address TEXT NOT NULL) WITHOUT ROWID;
"""


def ending(uuid: str) -> str:
    """Return *uuid*'s hex digits backwards: so its end can be looked up by a prefix."""
    return uuid.replace("-", "")[::-1]


def project(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Enter what *entries* change, in their order; ends that follow each other are entered together."""
    for ends, group in itertools.groupby(entries, lambda entry: isinstance(entry.record, JobEnded)):
        if ends:
            connection.executemany(_END, [_end_values(entry, cast(JobEnded, entry.record)) for entry in group])
            continue
        for entry in group:
            projection = _PROJECTIONS.get(type(entry.record))
            if projection is not None:
                projection(connection, entry, entry.record)


def _run_requested(connection: sqlite3.Connection, entry: Entry, record: RunRequested) -> None:
    script, files = record.command.script, record.files
    blobs = (script.sha256 if script else "", files.sha256 if files else "")
    lists = (msgspec.json.encode(names).decode() for names in (record.skipped, record.selected, record.left_out))
    _insert_run(
        connection, entry, record, (record.cwd, record.timeout_s, *blobs, None, record.exclude, record.raw, *lists)
    )
    connection.executemany(
        "INSERT INTO jobs (uuid, machine_id, machine, client, state, place, begun) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (record.uuid, machine.id, machine.name, record.client, State.REQUESTED, place, record.pace is None)
            for place, machine in enumerate(record.machines)
        ],
    )
    if is_plain(record.target, record.exclude):
        # It names its machine. What else names a machine that is new has a record of its own (Accepted) before it.
        connection.execute("UPDATE keys SET new = 0 WHERE new AND id = ?", (record.machines[0].id,))
    if record.pace is not None:
        connection.execute(
            "UPDATE runs SET paced_file = ?, paced_offset = ? WHERE uuid = ?", (entry.file, entry.offset, record.uuid)
        )


def _batch_begun(connection: sqlite3.Connection, entry: Entry, record: BatchBegun) -> None:
    connection.executemany(
        "UPDATE jobs SET begun = 1 WHERE uuid = ? AND machine_id = ?",
        [(record.uuid, machine_id) for machine_id in record.machine_ids],
    )


def _run_stopped(connection: sqlite3.Connection, entry: Entry, record: RunStopped) -> None:
    connection.execute("UPDATE runs SET stopped = ? WHERE uuid = ?", (record.reason, record.uuid))


def _run_refused(connection: sqlite3.Connection, entry: Entry, record: RunRefused) -> None:
    if record.key:
        problem = msgspec.json.encode(record.problem)
        _insert_run(connection, entry, record, ("", 0.0, "", "", problem, "", True, "[]", "[]", "null"))


def _insert_run(
    connection: sqlite3.Connection, entry: Entry, record: RunRequested | RunRefused, rest: tuple[Any, ...]
) -> None:
    connection.execute(
        "INSERT INTO runs (uuid, ending, client, client_id, key, digest, requested, target, command, cwd, timeout_s,"
        " script, manifest, problem, exclude, raw, skipped, selected, left_out)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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


_END = (
    "UPDATE jobs SET state = ?, started = ?, finished = ?, ended = ?, duration_s = ?, exit_code = ?, signal = ?,"
    " reason = ?, stdout_bytes = ?, stderr_bytes = ?, stdout_sha256 = ?, stderr_sha256 = ?"
    " WHERE uuid = ? AND machine_id = ?"
)


def _end_values(entry: Entry, record: JobEnded) -> tuple[Any, ...]:
    outcome, output = record.outcome, record.output
    return (
        outcome.state,
        record.started,
        entry.time,
        entry.seq,
        record.duration_s,
        outcome.exit_code,
        outcome.signal,
        outcome.reason,
        output.stdout_bytes,
        output.stderr_bytes,
        output.stdout_sha256,
        output.stderr_sha256,
        record.uuid,
        record.machine_id,
    )


def _cancel_requested(connection: sqlite3.Connection, entry: Entry, record: CancelRequested) -> None:
    connection.executemany(
        "UPDATE jobs SET cancelled = 1 WHERE uuid = ? AND machine_id = ?",
        [(record.uuid, machine.id) for machine in record.machines],
    )


def _enrolled(connection: sqlite3.Connection, entry: Entry, record: Enrolled | Renamed) -> None:
    adoption = record.adoption if isinstance(record, Enrolled) else None
    connection.execute(
        "INSERT INTO keys (fingerprint, role, name, id, address, enrolled, new, ai, carrier)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name, address = excluded.address,"
        " ai = ai OR excluded.ai,"
        " new = CASE WHEN excluded.name = name THEN new ELSE excluded.new END",
        (
            record.fingerprint,
            record.role,
            record.name,
            record.id,
            record.address,
            entry.time,
            begins_new(record),
            record.ai,
            msgspec.json.encode(adoption).decode() if adoption else "",
        ),
    )
    connection.execute("UPDATE tokens SET used = used + 1 WHERE id = ?", (record.token,))


def _key_ended(connection: sqlite3.Connection, entry: Entry, record: Revoked | Forgotten) -> None:
    connection.execute("UPDATE keys SET ended = ? WHERE fingerprint = ?", (entry.time, record.fingerprint))


def _forgotten(connection: sqlite3.Connection, entry: Entry, record: Forgotten) -> None:
    _key_ended(connection, entry, record)
    connection.execute("DELETE FROM members WHERE machine_id = ?", (record.id,))
    connection.execute("DELETE FROM labels WHERE machine_id = ?", (record.id,))


def _accepted(connection: sqlite3.Connection, entry: Entry, record: Accepted) -> None:
    connection.execute("UPDATE keys SET new = 0 WHERE new AND id = ?", (record.machine_id,))


_IF_TRUSTED = "WHERE EXISTS (SELECT 1 FROM keys WHERE id = ? AND ended = '')"
"""A machine may have been forgotten just before the record that still speaks of it."""


def _group_added(connection: sqlite3.Connection, entry: Entry, record: GroupAdded) -> None:
    connection.execute("INSERT OR IGNORE INTO groups VALUES (?)", (record.group,))
    connection.executemany(
        f"INSERT OR IGNORE INTO members SELECT ?, ? {_IF_TRUSTED}",
        [(record.group, machine.id, machine.id) for machine in record.machines],
    )


def _group_removed(connection: sqlite3.Connection, entry: Entry, record: GroupRemoved) -> None:
    connection.executemany(
        "DELETE FROM members WHERE name = ? AND machine_id = ?",
        [(record.group, machine.id) for machine in record.machines],
    )


def _group_deleted(connection: sqlite3.Connection, entry: Entry, record: GroupDeleted) -> None:
    connection.execute("DELETE FROM groups WHERE name = ?", (record.group,))
    connection.execute("DELETE FROM members WHERE name = ?", (record.group,))


def _labelled(connection: sqlite3.Connection, entry: Entry, record: Labelled) -> None:
    for key, value in record.labels.items():
        if value is None:
            gone = [(machine.id, key) for machine in record.machines]
            connection.executemany("DELETE FROM labels WHERE machine_id = ? AND key = ?", gone)
        else:
            connection.executemany(
                f"INSERT OR REPLACE INTO labels SELECT ?, ?, ? {_IF_TRUSTED}",
                [(machine.id, key, value, machine.id) for machine in record.machines],
            )


def _store_seen(connection: sqlite3.Connection, entry: Entry, record: StoreSeen) -> None:
    connection.execute("UPDATE keys SET store = ? WHERE id = ?", (record.store, record.machine_id))


def _tailnet_seen(connection: sqlite3.Connection, entry: Entry, record: TailnetSeen) -> None:
    connection.execute(
        "UPDATE keys SET tailnet_login = ?, tailnet_node = ? WHERE fingerprint = ?",
        (record.login, record.node, record.fingerprint),
    )


def _token_created(connection: sqlite3.Connection, entry: Entry, record: TokenCreated) -> None:
    connection.execute(
        "INSERT INTO tokens (id, uses, created, expires) VALUES (?, ?, ?, ?)",
        (record.token, record.uses, entry.time, record.expires),
    )


def _token_revoked(connection: sqlite3.Connection, entry: Entry, record: TokenRevoked) -> None:
    connection.execute("UPDATE tokens SET revoked = ? WHERE id = ?", (entry.time, record.token))


_PROJECTIONS: dict[type[Record], Callable[[sqlite3.Connection, Entry, Any], None]] = {
    RunRequested: _run_requested,
    BatchBegun: _batch_begun,
    RunStopped: _run_stopped,
    RunRefused: _run_refused,
    CancelRequested: _cancel_requested,
    Enrolled: _enrolled,
    Renamed: _enrolled,
    Revoked: _key_ended,
    Forgotten: _forgotten,
    Accepted: _accepted,
    GroupAdded: _group_added,
    GroupRemoved: _group_removed,
    GroupDeleted: _group_deleted,
    Labelled: _labelled,
    StoreSeen: _store_seen,
    TailnetSeen: _tailnet_seen,
    TokenCreated: _token_created,
    TokenRevoked: _token_revoked,
}
