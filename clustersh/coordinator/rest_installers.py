"""Calls that need no certificate: the installers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.threads import deferToThread

from ..address import Address, parse_address
from ..wire.joining import Invitation
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.queries import InviteQuery
from .api import Api
from .callers import Caller
from .http import Request
from .installers import NAMES, InstallerFacts, address_of_host, render, render_error, render_unaddressed
from .own_wheel import OwnWheel
from .packages import Packages
from .routes import ADMINS, Answer
from .wheelhouse import Contents

TEXT = "text/plain; charset=utf-8"


class Trust(NamedTuple):
    """What a script knows this coordinator by: the CA, and curl's pin of the server's key."""

    ca_sha256: str
    ca_pem: str
    server_pin: str


class Installers:
    """Makes the scripts."""

    def __init__(self, packages: Packages, trust: Trust) -> None:
        self._packages = packages
        self.trust = trust

    async def script(self, name: str, address: Address, scheme: str) -> bytes:
        """Return the installer *name* for machines that reach this coordinator at *address*. Raises ProblemError."""
        own, contents = await self._packages.own(), await self._packages.contents()
        return await deferToThread(lambda: render(name, self._facts(own, contents, address, scheme)).encode())

    async def invitation(self, address: Address) -> Invitation:
        """Return what machines know this coordinator by, and the sum of each installer. Raises ProblemError."""
        scripts = {name: await self.script(name, address, "http") for name in NAMES}
        sums = {name: hashlib.sha256(script).hexdigest() for name, script in scripts.items()}
        return Invitation(address.netloc, self.trust.server_pin, self.trust.ca_sha256, sums)

    def _facts(self, own: OwnWheel, contents: Contents, address: Address, scheme: str) -> InstallerFacts:
        return InstallerFacts(
            address=address.netloc,
            scheme=scheme,
            **self.trust._asdict(),
            version=own.version,
            wheel_name=own.name,
            wheel_sha256=own.sha256,
            requirements=contents.requirements(),
            kinds="".join(f"{' '.join(kind)}\n" for kind in contents.kinds()),
        )


class InstallerCalls:
    """``/install.sh`` and its like, and what an admin tells of them."""

    def __init__(self, installers: Installers) -> None:
        self._installers = installers

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        handlers = {
            "install.sh": self.install_sh,
            "install_client.sh": self.install_client_sh,
            "install.ps1": self.install_ps1,
            "install_client.ps1": self.install_client_ps1,
        }
        for name, handler in handlers.items():
            api.add_open(
                "GET",
                f"/{name}",
                handler,
                answers={200: (TEXT,)},
                problems=(Kind.UNAVAILABLE,),
                explain=_explain(name),
            )
        api.add("GET", "/v1/admin/invite", self.invite, ADMINS, query=InviteQuery, problems=(Kind.UNAVAILABLE,))

    async def install_sh(self, request: Request) -> Answer:
        """Give the shell script that makes a machine one that commands run on."""
        return await self._answer(request, "install.sh")

    async def install_client_sh(self, request: Request) -> Answer:
        """Give the shell script that makes a machine one that commands are typed on."""
        return await self._answer(request, "install_client.sh")

    async def install_ps1(self, request: Request) -> Answer:
        """Give the PowerShell script that makes a machine one that commands run on."""
        return await self._answer(request, "install.ps1")

    async def install_client_ps1(self, request: Request) -> Answer:
        """Give the PowerShell script that makes a machine one that commands are typed on."""
        return await self._answer(request, "install_client.ps1")

    async def invite(self, request: Request, caller: Caller, query: InviteQuery) -> Invitation:
        """Tell what machines know this coordinator by, and the sum of each installer."""
        try:
            address = parse_address(query.address)
        except ValueError as error:
            raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
        return await self._installers.invitation(address)

    async def _answer(self, request: Request, name: str) -> Answer:
        scheme = "https" if request.secure else "http"
        try:
            address = address_of_host(request.requestHeaders.getRawHeaders(b"Host", []), scheme)
        except ValueError:
            return Answer(render_unaddressed(name).encode(), 400, TEXT)
        return Answer(await self._installers.script(name, address, scheme), content_type=TEXT)


def _explain(name: str) -> Callable[[Problem], Answer]:
    """Return what tells a problem as a script in the language of *name*: a shell is handed whatever comes back."""

    def explain(problem: Problem) -> Answer:
        text = render_error(name, problem.detail, problem.hint or "see docs/troubleshooting.md")
        return Answer(text.encode(), problem.status, TEXT)

    return explain
