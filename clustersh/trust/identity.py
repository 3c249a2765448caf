"""Who a certificate speaks for: role, id and name, in one URI that only the coordinator writes.

This module imports no cryptography until a certificate is read: a command that only needs a role starts faster.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import msgspec

from .errors import CertificateError, TrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate, Extensions

NAME_LIMIT = 160
"""Characters in a name here; the grammar of machine and client names is stricter, and the coordinator's to check."""

SERVER_NAME = "coordinator.clustersh.internal"
"""The one name that programs verify the coordinator by, whatever address they reached it at."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SCHEME = "urn:clustersh:"


class Role(enum.StrEnum):
    """What a key may do. One key has one role."""

    FRONTEND = "frontend"
    AGENT = "agent"
    ADMIN = "admin"
    SERVER = "server"


class Identity(msgspec.Struct, frozen=True):
    """The holder of a certificate. Raises TrustError for a name or id that can't be written into one.

    *id* (1 to 64 of letters, digits, ``.``, ``_``, ``-``) stays the same for ever; *name* is an alias.
    """

    role: Role
    name: str
    id: str

    def __post_init__(self) -> None:
        check_name(self.name)
        if not _ID.fullmatch(self.id):
            raise TrustError(f"{self.id!r} can't be an id: use 1 to 64 letters, digits, '.', '_' and '-'")

    @property
    def uri(self) -> str:
        """The URI that stands for this identity in a certificate."""
        return f"{_SCHEME}{self.role}:{self.id}:{quote(self.name, safe='')}"

    @classmethod
    def from_uri(cls, uri: str) -> Identity:
        """Read what `uri` wrote; raises CertificateError for anything else, a second spelling of it included."""
        parts = uri.removeprefix(_SCHEME).split(":")
        try:
            role, id_, name = parts
            identity = cls(Role(role), unquote(name, errors="strict"), id_)
        except (ValueError, TrustError) as error:
            raise CertificateError(f"the certificate's identity {uri!r} is not one of clustersh") from error
        if identity.uri != uri:
            raise CertificateError(f"the certificate's identity {uri!r} is not in its canonical form")
        return identity

    @classmethod
    def from_certificate(cls, certificate: Certificate) -> Identity:
        """Read whom *certificate* speaks for. Its signature is TLS's to verify, its revocation the caller's.

        Raises CertificateError unless exactly one identity stands in it (in the server's there is none).
        """
        try:
            uris = clustersh_uris(certificate.extensions)
        except ValueError as error:
            raise CertificateError("the certificate is damaged: its extensions can't be read") from error
        if len(uris) != 1:
            raise CertificateError(f"the certificate names {len(uris)} clustersh identities; it must name one")
        return cls.from_uri(uris[0])


def check_name(name: str) -> None:
    """Raise TrustError unless *name* is 1 to `NAME_LIMIT` printable characters."""
    if not 1 <= len(name) <= NAME_LIMIT or not name.isprintable():
        raise TrustError(f"{name[:NAME_LIMIT]!r} can't be a name: use 1 to {NAME_LIMIT} printable characters")


def clustersh_uris(extensions: Extensions) -> list[str]:
    """Return the clustersh URIs among the alternative names in *extensions*."""
    from cryptography.x509 import (
        ExtensionNotFound,
        SubjectAlternativeName,
        UniformResourceIdentifier,
    )

    try:
        names = extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [uri for uri in names.get_values_for_type(UniformResourceIdentifier) if uri.startswith(_SCHEME)]


def fingerprint(holder: Certificate | PublicKeyTypes) -> str:
    """Return the SHA-256 (hex) of a public key, or of the key in a certificate.

    It is over the SubjectPublicKeyInfo DER, so it outlives a re-issued certificate.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import Certificate

    key = holder.public_key() if isinstance(holder, Certificate) else holder
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def curl_pin(key: PublicKeyTypes) -> str:
    """Return what curl's ``--pinnedpubkey`` takes for *key*: the same SHA-256 as its fingerprint, in base64."""
    return "sha256//" + base64.b64encode(bytes.fromhex(fingerprint(key))).decode()


def certificate_sha256(certificate: Certificate) -> str:
    """Return the SHA-256 (hex) of the whole certificate's DER: what ``--ca SHA256`` pins."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
