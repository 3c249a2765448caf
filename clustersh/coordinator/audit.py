"""Reading the ledger as it stands on the disk: the admin's view, and whether its chain holds."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from twisted.internet.threads import deferToThread

from ..wire.queries import MAX_PAGE
from ..wire.rest import AuditPage, Verified
from .ledger import Ledger
from .ledger_files import Entry, Head, LedgerBroken
from .witnesses import Testimony


@dataclass(frozen=True)
class AuditFilter:
    """Which records to show; empty parts don't restrict. *since* is RFC 3339 in UTC, *after* a sequence number."""

    client: str = ""
    machine: str = ""
    since: str = ""
    after: int = 0
    limit: int = 100


class Audit:
    """Questions to *ledger* that read its files, each in a thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def page(self, wanted: AuditFilter) -> AuditPage:
        """Return the records that fit, oldest first. Raises LedgerBroken."""
        return await deferToThread(self._page, wanted)

    async def verify(self, testimony: Testimony) -> Verified:
        """Walk the whole chain and say whether it holds and fits *testimony*, or where it first doesn't."""
        found = await deferToThread(self._verify, testimony)
        return msgspec.structs.replace(
            found,
            witnesses=testimony.count,
            machines=tuple(testimony.machines),
            unasked=tuple(testimony.unasked),
        )

    def _page(self, wanted: AuditFilter) -> AuditPage:
        limit = max(1, min(wanted.limit, MAX_PAGE))
        found: list[msgspec.Raw] = []
        last = 0
        for entry in self._ledger.read_until(self._ledger.head):
            if entry.seq <= wanted.after or entry.time < wanted.since or not _fits(entry, wanted):
                continue
            if len(found) == limit:
                return AuditPage(tuple(found), last)
            found.append(msgspec.Raw(entry.line))
            last = entry.seq
        return AuditPage(tuple(found))

    def _verify(self, testimony: Testimony) -> Verified:
        head, last, agreed = self._ledger.head, Head(), 0
        try:
            for entry in self._ledger.read_until(head):
                if machine := testimony.against(entry):
                    which = f"record {entry.seq}" if agreed + 1 == entry.seq else f"one of {agreed + 1} to {entry.seq}"
                    problem = f"{machine} was told of another record {entry.seq}: {which} was changed or left out"
                    return Verified(last.seq, last.seq, last.hash, agreed + 1, problem)
                if entry.seq in testimony.held:
                    agreed = entry.seq
                last = Head(entry.seq, entry.hash)
        except LedgerBroken as error:
            return Verified(last.seq, last.seq, last.hash, last.seq + 1, str(error))
        if (last.seq, last.hash) != (head.seq, head.hash):
            problem = f"the last record should be {head.seq}, of SHA-256 {head.hash}"
            return Verified(last.seq, last.seq, last.hash, min(last.seq + 1, head.seq), problem)
        missing, machine = testimony.beyond(last)
        if missing:
            problem = f"{machine} was told of record {missing}, the ledger ends with {last.seq}: its end was cut off"
            return Verified(last.seq, last.seq, last.hash, last.seq + 1, problem)
        return Verified(last.seq, last.seq, last.hash)


def _fits(entry: Entry, wanted: AuditFilter) -> bool:
    record = entry.record
    if wanted.client and wanted.client not in {getattr(record, "client", None), *_names_of(record, "frontend")}:
        return False
    if not wanted.machine:
        return True
    machines = {machine.name for machine in getattr(record, "machines", ())}
    machines |= {getattr(record, "machine", ""), *_names_of(record, "agent"), getattr(record, "target", "")}
    return wanted.machine in machines


def _names_of(record: object, role: str) -> set[str]:
    """Return whom an enrollment, its end or a new name is about, if that is a *role*."""
    kind = getattr(record, "role", {"Revoked": "frontend", "Forgotten": "agent"}.get(type(record).__name__, ""))
    return {getattr(record, name, "") for name in ("name", "before")} if kind == role else set()
