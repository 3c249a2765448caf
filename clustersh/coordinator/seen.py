"""When each machine was last here: kept beside the index, for `machines` and for the grace after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..wire.link import Facts
from .fleet import Fleet
from .index import Index
from .links import Seen

RECENT_S = 180.0
"""A machine that was seen this long before a start is expected back."""


class SeenBook:
    """Keeps what the fleet has seen. It is no part of the ledger: losing it only forgets a "last seen"."""

    def __init__(self, index: Index, fleet: Fleet, now: Callable[[], float]) -> None:
        self._log = Logger()
        self._index = index
        self._fleet = fleet
        self._now = now

    async def load(self) -> None:
        """Tell the fleet what was seen before, and whom to expect back."""
        self._fleet.seen.update(await self._index.ask(_read))
        recent = self._now() - RECENT_S
        self._fleet.expected.update(machine for machine, seen in self._fleet.seen.items() if seen.at > recent)

    async def save(self) -> None:
        """Write it all down."""
        await self._save(list(self._fleet.seen))

    def save_in_background(self) -> None:
        """Write it all down, some time soon."""
        self._in_background(list(self._fleet.seen))

    def came(self, machine_id: str) -> None:
        """Write down, some time soon, that this machine came: it is expected back even if we are killed now."""
        self._in_background([machine_id])

    def _in_background(self, machines: list[str]) -> None:
        Deferred.fromCoroutine(self._save(machines)).addErrback(
            lambda failure: self._log.warn("can't note who was seen: {reason}", reason=failure.getErrorMessage())
        )

    async def _save(self, machines: list[str]) -> None:
        noted = [(machine, self._fleet.seen[machine]) for machine in machines]
        rows = [
            (machine, seen.at, msgspec.json.encode(seen.facts), seen.version, seen.address) for machine, seen in noted
        ]
        await self._index.ask(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        )


def _read(connection: sqlite3.Connection) -> dict[str, Seen]:
    return {
        row["machine_id"]: Seen(
            row["at"],
            msgspec.json.decode(row["facts"], type=Facts),
            row["version"],
            row["address"],
        )
        for row in connection.execute("SELECT * FROM seen")
    }
