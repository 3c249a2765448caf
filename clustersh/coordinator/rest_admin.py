"""An admin's calls: who may come in, who must leave, and what was done."""

from __future__ import annotations

from datetime import datetime

from ..wire import units
from ..wire.problems import Kind
from ..wire.queries import AuditQuery, VerifyQuery, seconds_since_1970
from ..wire.rest import Approve, Approved, AuditPage, Client, Clients, NameOf, PendingList, Verified
from .api import Api
from .approvals import Approvals
from .audit import Audit, AuditFilter
from .callers import Caller
from .http import Request
from .registry import Key, Registry
from .routes import ADMINS
from .witnesses import NO_WITNESSES, WitnessCollector


class AdminCalls:
    """``/v1/admin``."""

    def __init__(self, approvals: Approvals, registry: Registry, audit: Audit, witnesses: WitnessCollector) -> None:
        self._approvals = approvals
        self._registry = registry
        self._audit = audit
        self._witnesses = witnesses

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        api.add("GET", "/v1/admin/pending", self.pending, ADMINS)
        api.add(
            "POST",
            "/v1/admin/approve",
            self.approve,
            ADMINS,
            Approve,
            problems=(Kind.WRONG_CODE, Kind.NAME_TAKEN, Kind.RATE_LIMITED, Kind.STORAGE),
        )
        api.add("GET", "/v1/admin/clients", self.clients, ADMINS)
        api.add("POST", "/v1/admin/revoke", self.revoke, ADMINS, NameOf, problems=(Kind.UNKNOWN_CLIENT, Kind.STORAGE))
        api.add("POST", "/v1/admin/forget", self.forget, ADMINS, NameOf, problems=(Kind.UNKNOWN_MACHINE, Kind.STORAGE))
        api.add("POST", "/v1/admin/accept", self.accept, ADMINS, NameOf, problems=(Kind.UNKNOWN_MACHINE, Kind.STORAGE))
        api.add("GET", "/v1/admin/audit", self.audit, ADMINS, query=AuditQuery)
        api.add("GET", "/v1/admin/verify", self.verify, ADMINS, query=VerifyQuery)

    async def pending(self, request: Request, caller: Caller) -> PendingList:
        """List who and what waits for an approval."""
        return PendingList(tuple(self._approvals.pending()))

    async def approve(self, request: Request, caller: Caller, body: Approve) -> Approved:
        """Let in whoever has that code, or allow what has it."""
        return await self._approvals.approve(body.code, caller.identity.name, ai=body.ai, dry_run=body.dry_run)

    async def clients(self, request: Request, caller: Caller) -> Clients:
        """List the clients, the revoked ones too."""
        return Clients(tuple(_client(key) for key in self._registry.clients()))

    async def revoke(self, request: Request, caller: Caller, body: NameOf) -> None:
        """Trust a client no more."""
        await self._registry.revoke(body.name, dry_run=body.dry_run)

    async def forget(self, request: Request, caller: Caller, body: NameOf) -> None:
        """Trust a machine no more, and free its name."""
        await self._registry.forget(body.name, dry_run=body.dry_run)

    async def accept(self, request: Request, caller: Caller, body: NameOf) -> None:
        """Have a machine that is new be one like any other."""
        await self._registry.accept(body.name, dry_run=body.dry_run)

    async def audit(self, request: Request, caller: Caller, query: AuditQuery) -> AuditPage:
        """Return a page of the ledger."""
        wanted = AuditFilter(
            client=query.client.lower(),
            machine=query.machine.lower(),
            since=_since(query.since),
            after=query.after,
            limit=query.limit,
        )
        return await request.unless_gone(self._audit.page(wanted))

    async def verify(self, request: Request, caller: Caller, query: VerifyQuery) -> Verified:
        """Say whether the ledger's chain holds, and is the one that the machines were told of."""
        return await request.unless_gone(self._verify(query.witness))

    async def _verify(self, witness: bool) -> Verified:
        return await self._audit.verify(await self._witnesses.collect() if witness else NO_WITNESSES)


def _client(key: Key) -> Client:
    ended = key.ended or None
    return Client(key.name, key.id, key.fingerprint, key.address, key.enrolled, ended, key.ai, key.tailnet)


def _since(moment: datetime | None) -> str:
    """Return *moment* as the ledger writes times, so that they compare."""
    return units.timestamp(seconds_since_1970(moment)) if moment else ""
