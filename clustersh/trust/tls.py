"""TLS 1.3 contexts for both ends, and who is at the other one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from .credentials import Credentials
from .identity import SERVER_NAME

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def server_context_factory(credentials: Credentials) -> CertificateOptions:
    """Return the coordinator's end: it asks for a client certificate and takes none, but never a stranger's.

    Nothing here knows of revocation: callers look the key up at every request.
    """
    return CertificateOptions(
        **_shown(credentials.key, credentials.certificate),
        verify=True,
        requireCertificate=False,
        caCerts=[X509.from_cryptography(credentials.ca)],
    )


def client_connection_creator(
    ca: x509.Certificate,
    key: EllipticCurvePrivateKey | None = None,
    certificate: x509.Certificate | None = None,
) -> IOpenSSLClientConnectionCreator:
    """Return a client's end, which trusts only *ca*; with *key* and *certificate* it says who it is."""
    return optionsForClientTLS(
        SERVER_NAME,
        trustRoot=Certificate.loadPEM(ca.public_bytes(Encoding.PEM)),
        extraCertificateOptions=_shown(key, certificate),
    )


def _shown(key: EllipticCurvePrivateKey | None, certificate: x509.Certificate | None) -> dict[str, Any]:
    # Twisted passes these on to pyOpenSSL, whose own classes (which Twisted's annotations name) are deprecated.
    return {"privateKey": key, "certificate": certificate, "raiseMinimumTo": TLSVersion.TLSv1_3}


@implementer(IPolicyForHTTPS)
class ClientPolicy:
    """How treq and Agent verify the coordinator: by its one name, whatever address was dialled.

    `creator` serves other protocols on the same terms.
    """

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self.creator = creator

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return the same creator for every address (Twisted's name for this method)."""
        return self.creator


def load_client_policy(folder: Path, now: datetime | None = None) -> ClientPolicy:
    """Read ``key.pem``, ``cert.pem`` and ``ca.pem`` in *folder*; raises as `Credentials.load` does.

    *now* is when the certificate must be valid; the present if None.
    """
    credentials = Credentials.load(folder, now or datetime.now(UTC))
    return ClientPolicy(client_connection_creator(credentials.ca, credentials.key, credentials.certificate))


def peer_certificate(transport: object) -> x509.Certificate | None:
    """Return the verified certificate at the other end of *transport*; None without one, and without TLS."""
    get_certificate = getattr(transport, "getPeerCertificate", None)
    found = get_certificate() if get_certificate is not None else None
    return None if found is None else found.to_cryptography()
