"""Has the coordinator let in a machine that this agent carries. Imported when one is adopted: it costs memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..pairing_client import Pairing, forget_pending
from ..pinning import PAIRING_ANSWER_LIMIT
from ..rest_client import RestClient
from ..trust.credentials import CA_FILE, load_certificate
from ..trust.errors import PairingError
from ..trust.identity import Identity, Role, certificate_sha256
from ..trust.tls import ClientPolicy, client_connection_creator
from ..trust.tokens import read_token
from .state import AgentIdentity


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
        started = await pairing.start(name)
        if not started.approved:
            raise PairingError("the coordinator does not take the join token that it made for this")
        credentials = await pairing.wait()
        pairing.keep(credentials)
    finally:
        await pairing.close()
    forget_pending(folder)
    found = Identity.from_certificate(credentials.certificate)
    return AgentIdentity(own.coordinator, found.name, found.id)
