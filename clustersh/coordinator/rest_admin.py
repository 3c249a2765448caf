"""An admin's calls: who may come in, who must leave, and what was done."""

from __future__ import annotations

from ..wire import units
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Approve, Approved, AuditPage, Client, Clients, NameOf, PendingList, Verified
from .api import ADMINS, Api
from .audit import MAX_PAGE, Audit, AuditFilter
from .callers import Caller
from .http import Request
from .pairing import Pairings
from .registry import Key, Registry


class AdminCalls:
    """``/v1/admin``."""

    def __init__(self, pairings: Pairings, registry: Registry, audit: Audit) -> None:
        self._pairings = pairings
        self._registry = registry
        self._audit = audit

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        api.add("GET", "/v1/admin/pending", self.pending, ADMINS)
        api.add("POST", "/v1/admin/approve", self.approve, ADMINS, Approve)
        api.add("GET", "/v1/admin/clients", self.clients, ADMINS)
        api.add("POST", "/v1/admin/revoke", self.revoke, ADMINS, NameOf)
        api.add("POST", "/v1/admin/forget", self.forget, ADMINS, NameOf)
        api.add("GET", "/v1/admin/audit", self.audit, ADMINS)
        api.add("GET", "/v1/admin/verify", self.verify, ADMINS)

    async def pending(self, request: Request, caller: Caller) -> PendingList:
        """List who waits for an approval."""
        return PendingList(tuple(self._pairings.pending()))

    async def approve(self, request: Request, caller: Caller, body: Approve) -> Approved:
        """Let in whoever has that code."""
        return await self._pairings.approve(body.code)

    async def clients(self, request: Request, caller: Caller) -> Clients:
        """List the clients, the revoked ones too."""
        return Clients(tuple(_client(key) for key in self._registry.clients()))

    async def revoke(self, request: Request, caller: Caller, body: NameOf) -> None:
        """Trust a client no more."""
        await self._registry.revoke(body.name)

    async def forget(self, request: Request, caller: Caller, body: NameOf) -> None:
        """Trust a machine no more, and free its name."""
        await self._registry.forget(body.name)

    async def audit(self, request: Request, caller: Caller) -> AuditPage:
        """Return a page of the ledger."""
        wanted = AuditFilter(
            client=(request.query("client") or "").lower(),
            machine=(request.query("machine") or "").lower(),
            since=_since(request.query("since")),
            after=_count(request, "after", 0),
            limit=_count(request, "limit", MAX_PAGE),
        )
        return await request.unless_gone(self._audit.page(wanted))

    async def verify(self, request: Request, caller: Caller) -> Verified:
        """Say whether the ledger's chain holds."""
        return await request.unless_gone(self._audit.verify())


def _client(key: Key) -> Client:
    return Client(key.name, key.id, key.fingerprint, key.address, key.enrolled, key.ended or None)


def _since(text: str | None) -> str:
    """Return *text* as the ledger writes times, so that they compare. Raises ProblemError."""
    if not text:
        return ""
    try:
        return units.timestamp(units.parse_timestamp(text))
    except (ValueError, OverflowError) as error:
        raise ProblemError(Kind.BAD_REQUEST, "since is an RFC 3339 time such as 2026-11-20T10:31:07Z") from error


def _count(request: Request, name: str, default: int) -> int:
    text = request.query(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ProblemError(Kind.BAD_REQUEST, f"{name} must be a whole number of 0 or more")
    return int(text)
