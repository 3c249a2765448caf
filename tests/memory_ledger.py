"""As much of the ledger as what records enrollments needs, in memory."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from clustersh.coordinator.ledger import Entry
from clustersh.coordinator.records import Record


class MemoryLedger:
    """Keeps *records*; *wait*, where it is set, is waited for before the next one is durable."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.followers: list[Callable[[Entry], None]] = []
        self.wait: Deferred[None] | None = None

    def append(self, record: Record) -> Deferred[Entry]:
        waiting, self.wait = self.wait or succeed(None), None
        return waiting.addCallback(lambda _: self._take(record))

    def _take(self, record: Record) -> Entry:
        self.records.append(record)
        seq = len(self.records)
        entry = Entry(seq, "", f"2026-11-20T12:00:00.{seq:03}Z", "", 0, record, b"")
        for follower in self.followers:
            follower(entry)
        return entry
