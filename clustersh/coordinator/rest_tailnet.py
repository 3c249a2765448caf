"""REST: the tailnet that the coordinator's host is in, and the line that brings more of it in."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from ..address import DEFAULT_PORT, Address, parse_address
from ..tailscale_program import Report, shown
from ..wire.problems import Kind, ProblemError
from ..wire.tailnet import TailnetQuery, TailnetView
from .api import Api
from .callers import Caller
from .http import Request
from .join_lines import pinned_line, powershell_line
from .rest_installers import Installers
from .routes import CLIENTS
from .tailnet import Tailnet


class TailnetCalls(NamedTuple):
    """``/v1/tailnet``. *host* is the coordinator's, *policy* is `[enrollment] policy`."""

    tailnet: Tailnet
    installers: Installers
    host: str
    policy: str

    def add_to(self, api: Api) -> None:
        """Add the call."""
        api.add("GET", "/v1/tailnet", self.show, CLIENTS, query=TailnetQuery, problems=(Kind.UNAVAILABLE,))

    async def show(self, request: Request, caller: Caller, query: TailnetQuery) -> TailnetView:
        """List the machines of the tailnet that the coordinator's host is in."""
        try:
            reached = parse_address(query.address) if query.address else Address(self.host.lower(), DEFAULT_PORT)
        except ValueError as error:
            raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
        return await request.unless_gone(self._show(reached))

    async def _show(self, reached: Address) -> TailnetView:
        report = await self.tailnet.report()
        address = _in_tailnet(report, reached)
        invitation = await self.installers.invitation(address)
        return TailnetView(
            host=self.host,
            state=report.state,
            problem=report.problem,
            nodes=shown(report.nodes),
            line=pinned_line(invitation, address),
            powershell=powershell_line(invitation, address),
            policy=self.policy,
        )


def _in_tailnet(report: Report, reached: Address) -> Address:
    """Return where the tailnet's machines reach the coordinator, which this caller does at *reached*."""
    for node in report.nodes:
        for host in (node.dns_name, *node.addresses) if node.own else ():
            with contextlib.suppress(ValueError):
                return Address(parse_address(host).host, reached.port)
    return reached
