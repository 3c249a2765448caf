"""The pairing code: 8 hex digits which prove that both ends of a login over plain HTTP saw the same things.

The caller commits to its nonce before it sees the coordinator's, and reveals it after: neither side, nor a man in
the middle between them, can choose a nonce that makes the codes of two different conversations equal.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from urllib.parse import quote, unquote

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from . import keys
from .errors import PairingError, TrustError
from .identity import Role, check_name, clustersh_uris

REQUEST_LIMIT = 8 * 1024
"""Bytes of a whole request; a usual one has some 400."""
NONCE_BYTES = 32

_LABEL = b"clustersh pairing 1"
# No role is called "request", so this can never be read as an identity.
_REQUEST_URI = "urn:clustersh:request:"
# Not all of them are ValueErrors.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_PAIRED_ROLES = frozenset({Role.FRONTEND, Role.AGENT})


class PairingRequest(msgspec.Struct, frozen=True):
    """What a caller asks for: nothing in it is granted before the approval.

    Only that it holds *public_key* is proven. Compare *role* with the one that stands in the caller's message.
    """

    public_key: EllipticCurvePublicKey
    name: str
    role: Role


class PairingCode(msgspec.Struct, frozen=True):
    """*code* (8 hex digits) is typed by the admin; *check* (4 more) is shown at both ends to compare."""

    code: str
    check: str

    @classmethod
    def of(cls, transcript: bytes) -> PairingCode:
        """Cut the code out of a `transcript_hash`."""
        digits = transcript.hex()
        return cls(digits[:8], digits[8:12])


def make_request(key: EllipticCurvePrivateKey, name: str, role: Role) -> bytes:
    """Make the request (a CSR, DER) of *key*'s holder to be called *name*; raises TrustError for a bad name."""
    check_name(name)
    if role not in _PAIRED_ROLES:
        raise PairingError(f"the role {role} can't be asked for")
    uri = x509.UniformResourceIdentifier(f"{_REQUEST_URI}{role}:{quote(name, safe='')}")
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def read_request(der: bytes) -> PairingRequest:
    """Read and verify a stranger's request; raises PairingError saying what is wrong with it."""
    if len(der) > REQUEST_LIMIT:
        raise PairingError(f"the certificate request has {len(der)} bytes; {REQUEST_LIMIT} are allowed")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        uris = clustersh_uris(request.extensions)
    except _UNREADABLE as error:
        raise PairingError("the certificate request can't be read") from error
    if not keys.is_p256(public_key):
        raise PairingError("the certificate request has another kind of key; P-256 is needed")
    if not _signed_by_its_key(request):
        raise PairingError("the certificate request isn't signed by its own key")
    name, role = _wanted(uris)
    return PairingRequest(public_key, name, role)


def _signed_by_its_key(request: x509.CertificateSigningRequest) -> bool:
    try:
        return isinstance(request.signature_hash_algorithm, SHA256) and request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _wanted(uris: list[str]) -> tuple[str, Role]:
    try:
        (uri,) = uris
        role_text, quoted = uri.removeprefix(_REQUEST_URI).split(":")
        role, name = Role(role_text), unquote(quoted, errors="strict")
        check_name(name)
    except (ValueError, TrustError) as error:
        raise PairingError("the certificate request doesn't say one name and role") from error
    if role not in _PAIRED_ROLES:
        raise PairingError(f"the role {role} can't be asked for")
    return name, role


def new_nonce() -> bytes:
    """Return 32 random bytes."""
    return secrets.token_bytes(NONCE_BYTES)


def commitment(nonce: bytes) -> bytes:
    """Return what binds its sender to *nonce* without telling it (32 bytes)."""
    return hashlib.sha256(_nonce(nonce)).digest()


def opens(committed: bytes, nonce: bytes) -> bool:
    """Whether *nonce* is the one that *committed* was made of; False for one of a wrong length."""
    return len(nonce) == NONCE_BYTES and hmac.compare_digest(committed, commitment(nonce))


def transcript_hash(role: Role, request_der: bytes, ca_der: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) over all that both ends must have seen alike.

    Every field goes in after its length, so no byte can pass from one to the next. Raises PairingError for a nonce
    that isn't 32 bytes.
    """
    digest = hashlib.sha256()
    nonces = _nonce(client_nonce), _nonce(server_nonce)
    for field in (_LABEL, role.value.encode(), request_der, ca_der, *nonces):
        digest.update(struct.pack(">Q", len(field)))
        digest.update(field)
    return digest.digest()


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise PairingError(f"a pairing nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return nonce
