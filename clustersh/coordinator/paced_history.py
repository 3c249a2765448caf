"""What the index and the ledger know of runs that go in batches and are not over. Asked once, after a start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from ..wire.jobs import State
from .records import Record, RunRequested


@dataclass(frozen=True)
class EarlierRun:
    """A run that goes in batches, from before a restart: its request's *record*, and the ids of machines.

    *begun*: their batch was recorded. *ended* have an outcome; the value says whether they completed.
    """

    record: RunRequested
    stopped: str | None
    begun: tuple[str, ...]
    ended: dict[str, bool]


def earlier_runs(connection: sqlite3.Connection, read: Callable[[str, int], Record]) -> list[EarlierRun]:
    """Return the runs that go in batches and have a job without an outcome; *read* gives a record by its place."""
    rows = connection.execute(
        "SELECT uuid, stopped, paced_file, paced_offset FROM runs WHERE paced_file IS NOT NULL"
        " AND uuid IN (SELECT uuid FROM jobs WHERE state = 'requested') ORDER BY uuid"
    ).fetchall()
    return [_earlier(connection, row, cast(RunRequested, read(row["paced_file"], row["paced_offset"]))) for row in rows]


def _earlier(connection: sqlite3.Connection, row: sqlite3.Row, record: RunRequested) -> EarlierRun:
    jobs = connection.execute("SELECT machine_id, begun, state FROM jobs WHERE uuid = ?", (row["uuid"],)).fetchall()
    return EarlierRun(
        record,
        row["stopped"],
        tuple(job["machine_id"] for job in jobs if job["begun"]),
        {job["machine_id"]: job["state"] == State.COMPLETED for job in jobs if State(job["state"]).ended},
    )
