"""REST: having an agent carry machines that only have SSH. docs/rest.md lists the calls."""

from __future__ import annotations

from ..wire.adopting import AdoptedMachine, AdoptMachine, SshHosts
from ..wire.problems import Kind
from ..wire.queries import ViaQuery
from .adoption import Adoptions
from .api import Api
from .callers import Caller
from .http import Request
from .routes import CLIENTS


class AdoptCalls:
    """``/v1/adopt``."""

    def __init__(self, adoptions: Adoptions) -> None:
        self._adoptions = adoptions

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        problems = (Kind.UNKNOWN_MACHINE, Kind.UNREACHABLE, Kind.POLICY)
        more = (*problems, Kind.NAME_TAKEN, Kind.RATE_LIMITED, Kind.STORAGE)
        api.add("POST", "/v1/adopt", self.adopt, CLIENTS, AdoptMachine, problems=more)
        api.add("GET", "/v1/adopt/hosts", self.hosts, CLIENTS, query=ViaQuery, problems=problems)

    async def adopt(self, request: Request, caller: Caller, body: AdoptMachine) -> AdoptedMachine:
        """Have an agent carry a machine that only has SSH."""
        return await self._adoptions.adopt(body, caller.identity)

    async def hosts(self, request: Request, caller: Caller, query: ViaQuery) -> SshHosts:
        """List the hosts in the ssh configuration of an agent's user."""
        gateway, hosts = await self._adoptions.hosts(query.via, caller.identity)
        return SshHosts(gateway.name, hosts)
