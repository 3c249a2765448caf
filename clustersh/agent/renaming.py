"""Has the machine called as ``[agent] name`` says, where that has changed since it was enrolled.

The agent asks as at an enrollment, with the key that it has, while it goes on under its old name: whether the new one
is granted is the coordinator's, or an admin's, to say. The id stays, and so does all that is known of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..home import write_json
from ..pairing_client import Pairing, PairingEndedError, forget_pending
from ..pinning import PAIRING_ANSWER_LIMIT
from ..rest_client import RestClient, Unreachable
from ..trust.credentials import CA_FILE, load_certificate
from ..trust.errors import TrustError
from ..trust.identity import Identity, Role, certificate_sha256
from ..trust.tls import ClientPolicy, client_connection_creator
from ..wire.problems import Kind, ProblemError
from .state import IDENTITY_FILE, AgentIdentity

RETRY_S = 60.0
_LATER = (Kind.RATE_LIMITED, Kind.UNAVAILABLE, Kind.STORAGE, Kind.INTERNAL)


class Renaming:
    """One change of the name, from *identity*'s to *name*, of the agent in *folder*; *now* is the wall clock."""

    _log = Logger()

    def __init__(
        self, reactor: Any, folder: Path, identity: AgentIdentity, name: str, now: Callable[[], float]
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._identity = identity
        self._name = name
        self._now = now

    async def run(self) -> None:
        """Ask until there is an answer, and take it up. What goes wrong is logged."""
        try:
            while not await self._ask():
                await deferLater(self._reactor, RETRY_S)
        except ProblemError as error:
            hint = "; ".join(error.problem.hint.splitlines())
            self._goes_on(f"{error.problem.detail} ({hint})" if hint else error.problem.detail)
        except (TrustError, OSError) as error:
            self._goes_on(str(error))

    async def _ask(self) -> bool:
        """Return whether the coordinator could be asked."""
        ca = load_certificate(self._folder / CA_FILE)
        policy = ClientPolicy(client_connection_creator(ca))
        client = RestClient(self._reactor, self._identity.address, policy, answer_limit=PAIRING_ANSWER_LIMIT)
        pin = certificate_sha256(ca)
        pairing = Pairing(self._reactor, client, self._folder, Role.AGENT, ca_sha256=pin, now=self._now)
        try:
            await self._pair(pairing)
        except Unreachable:  # as the link's log says
            return False
        except ProblemError as error:
            if error.problem.kind not in _LATER:
                raise
            return False
        finally:
            await pairing.close()
        return True

    async def _pair(self, pairing: Pairing) -> None:
        started = await pairing.start(self._name)
        if not started.approved:
            host = started.host or self._identity.address.host
            self._goes_on(f"to allow {self._name}, run on {host}: clusterd approve {started.code.code} (10 minutes)")
        try:
            credentials = await pairing.wait()
        except PairingEndedError:
            self._goes_on("it was not allowed in time; the agent asks again at its next start")
            return
        # The key and the CA are the same, so there is no moment without a certificate.
        credentials.save(self._folder)
        found = Identity.from_certificate(credentials.certificate)
        renamed = AgentIdentity(self._identity.coordinator, found.name, found.id, before=self._identity.machine)
        write_json(self._folder / IDENTITY_FILE, renamed)
        forget_pending(self._folder)
        self._log.info("this machine is called {new} now (it was {old})", new=found.name, old=self._identity.machine)

    def _goes_on(self, why: str) -> None:
        self._log.warn(
            "[agent] name is {new}, and this machine goes on as {old}: {why}",
            new=self._name,
            old=self._identity.machine,
            why=why,
        )
