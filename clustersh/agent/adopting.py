"""Has the coordinator let in a machine that this agent carries. Imported when one is adopted: it costs memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from ..pairing_client import Pairing, Started, forget_pending
from ..pinning import PAIRING_ANSWER_LIMIT
from ..rest_client import RestClient
from ..trust.credentials import CA_FILE, load_certificate
from ..trust.errors import PairingError
from ..trust.identity import Identity, Role, certificate_sha256
from ..trust.tls import ClientPolicy, client_connection_creator
from ..trust.tokens import read_token
from ..wire.problems import Kind, ProblemError
from .state import AgentIdentity

_PATIENCE_S = 30.0


async def pair(
    reactor: Any, own_folder: Path, folder: Path, own: AgentIdentity, name: str, token: str
) -> AgentIdentity:
    """Return who *name* is, its key and certificate kept in *folder*: let in by *token*, at the agent's coordinator.

    Raises TrustError, ProblemError and Unreachable.
    """
    try:
        known = read_token(token)
    except ValueError as error:
        raise PairingError(str(error)) from error
    ca = load_certificate(own_folder / CA_FILE)
    policy = ClientPolicy(client_connection_creator(ca))
    client = RestClient(reactor, own.address, policy, answer_limit=PAIRING_ANSWER_LIMIT)
    pairing = Pairing(reactor, client, folder, Role.AGENT, ca_sha256=certificate_sha256(ca), token=known)
    try:
        started = await _start(reactor, pairing, name)
        if not started.approved:
            raise PairingError("the coordinator does not take the join token that it made for this")
        credentials = await pairing.wait()
        pairing.keep(credentials)
    finally:
        await pairing.close()
    forget_pending(folder)
    found = Identity.from_certificate(credentials.certificate)
    return AgentIdentity(own.coordinator, found.name, found.id)


async def _start(reactor: Any, pairing: Pairing, name: str) -> Started:
    """Ask to be let in; the coordinator takes some requests at once from one address, then one a second."""
    deadline = reactor.seconds() + _PATIENCE_S
    while True:
        try:
            return await pairing.start(name)
        except ProblemError as error:
            if error.problem.kind is not Kind.RATE_LIMITED or reactor.seconds() > deadline:
                raise
        await deferLater(reactor, 1.0)
