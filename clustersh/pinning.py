"""Reaching a coordinator over TLS, where nothing is known of it but its CA certificate's SHA-256."""

from __future__ import annotations

import hmac

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from twisted.internet.interfaces import IReactorTime

from .address import Address
from .rest_client import RestClient
from .trust.errors import PairingError
from .trust.identity import certificate_sha256
from .trust.tls import ClientPolicy, client_connection_creator
from .wire.rest import Health

PAIRING_ANSWER_LIMIT = 64 << 10
"""Bytes: before the pairing, who answers may be anyone."""


async def over_tls(reactor: IReactorTime, plain: RestClient, ca_sha256: str) -> RestClient:
    """Return a client that verifies the coordinator by the CA whose certificate has that SHA-256 (hex).

    The certificate is fetched by *plain*, and may come from anyone: the SHA-256 says whether it is the right one.
    Raises PairingError where it isn't, Unreachable.
    """
    ca = await _fetch_ca(plain)
    check_pin(ca, ca_sha256, plain.address.netloc)
    policy = ClientPolicy(client_connection_creator(ca))
    return RestClient(reactor, plain.address, policy, answer_limit=PAIRING_ANSWER_LIMIT)


async def check_reachable(reactor: IReactorTime, address: Address, ca_sha256: str) -> None:
    """Ask the coordinator at *address* for what a pairing begins with, and for nothing that it would keep.

    Raises PairingError where it isn't one, or not that of the CA with *ca_sha256* ("" is any); Unreachable;
    ProblemError.
    """
    client = RestClient(reactor, address, None, answer_limit=PAIRING_ANSWER_LIMIT)
    try:
        if not ca_sha256:
            await _fetch_ca(client)
            return
        plain, client = client, await over_tls(reactor, client, ca_sha256)
        await plain.close()
        await client.call("GET", "/health", answer=Health)
    finally:
        await client.close()


def check_pin(ca: x509.Certificate, ca_sha256: str, netloc: str) -> None:
    """Raise PairingError unless *ca*, which came from *netloc*, has that SHA-256."""
    found = certificate_sha256(ca)
    if not hmac.compare_digest(found, ca_sha256):
        raise PairingError(
            f"{netloc} is not the coordinator that --ca names (or [join] ca; its CA certificate's SHA-256 is {found}): "
            "it was set up anew, or something stands in between"
        )


async def _fetch_ca(plain: RestClient) -> x509.Certificate:
    received = await plain.call("GET", "/ca.pem", answer=bytes)
    try:
        return x509.load_pem_x509_certificate(received)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PairingError(
            f"what answers at {plain.address.netloc} shows no CA certificate: it is no coordinator"
        ) from error
