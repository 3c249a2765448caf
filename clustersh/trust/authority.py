"""The coordinator's certificate authority: the only place where certificates are made.

All times given to it are aware datetimes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import keys
from .credentials import Credentials, check_validity, load_certificate, save_certificate
from .errors import MissingCredentialsError, TrustError
from .identity import SERVER_NAME, Identity, Role, fingerprint

CA_LIFETIME = timedelta(days=365 * 50)
LEAF_LIFETIME = timedelta(days=365 * 10)
BACKDATED = timedelta(days=1)
"""Certificates start this long before they are made: a peer's clock may be behind."""
RENEW_BEFORE = timedelta(days=30)

_CA_KEY_FILE = "ca-key.pem"
_CA_FILE = "ca.pem"
_SERVER_KEY_FILE = "server-key.pem"
_SERVER_FILE = "server.pem"
_SERVER_IDENTITY = Identity(Role.SERVER, "coordinator", "coordinator")
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)


class Authority:
    """The CA's key and certificate. Its fingerprint is what every program pins."""

    def __init__(self, key: EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @property
    def certificate_pem(self) -> bytes:
        """The CA certificate, as programs keep it."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The CA certificate, as the pairing code covers it."""
        return self.certificate.public_bytes(Encoding.DER)

    @classmethod
    def create(cls, folder: Path, now: datetime) -> Authority:
        """Make a new authority in *folder*. Raises TrustError if one is there, or the clock is far in the past."""
        if (folder / _CA_KEY_FILE).exists() or (folder / _CA_FILE).exists():
            raise TrustError(f"there is a certificate authority in {folder} already")
        if now < _EARLIEST:
            raise TrustError(f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC: set the clock first")
        key = keys.generate()
        keys.save(folder / _CA_KEY_FILE, key)
        return cls._certify(folder, key, now)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read the authority in *folder*; raises MissingCredentialsError or TrustError, as `keys.load` does."""
        key = keys.load(folder / _CA_KEY_FILE)
        certificate = load_certificate(folder / _CA_FILE)
        if certificate.public_key() != key.public_key():
            raise TrustError(f"{folder / _CA_FILE} belongs to another key than {folder / _CA_KEY_FILE}")
        return cls(key, certificate)

    @classmethod
    def open(cls, folder: Path, now: datetime) -> Authority:
        """Load the authority in *folder*, or create it at the first start.

        A key without its certificate (a crash between the two) gets a new certificate, which everything issued
        before still fits. A certificate without its key raises TrustError: a new key would lock everyone out.
        """
        has_key, has_certificate = ((folder / name).exists() for name in (_CA_KEY_FILE, _CA_FILE))
        if has_certificate and not has_key:
            raise TrustError(
                f"{folder / _CA_KEY_FILE} is missing, but {folder / _CA_FILE} is there: restore it from a backup"
            )
        if has_certificate:
            return cls.load(folder)
        if has_key:
            return cls._certify(folder, keys.load(folder / _CA_KEY_FILE), now)
        return cls.create(folder, now)

    def issue(
        self,
        identity: Identity,
        public_key: EllipticCurvePublicKey,
        now: datetime,
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> x509.Certificate:
        """Make a certificate that says that the holder of *public_key* is *identity*.

        The server's says so by its one DNS name, all others by the identity's URI. It never outlives the CA's own.
        Raises TrustError for a key that is no P-256 key, CertificateError if the CA certificate isn't valid at *now*.
        """
        if not keys.is_p256(public_key):
            raise TrustError("certificates are issued for P-256 keys only")
        check_validity(self.certificate, now, "the certificate authority")
        if identity.role is Role.SERVER:
            # No URI here: service_identity can't parse ours, and Twisted takes a name that it failed to check as good.
            alternative: x509.GeneralName = x509.DNSName(SERVER_NAME)
            usage = ExtendedKeyUsageOID.SERVER_AUTH
        else:
            alternative = x509.UniformResourceIdentifier(identity.uri)
            usage = ExtendedKeyUsageOID.CLIENT_AUTH
        end = min(now + lifetime, self.certificate.not_valid_after_utc)
        builder = (
            _builder(identity.id, public_key, now - BACKDATED, end)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, SHA256())

    def issue_server(self, public_key: EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
        """Make the coordinator's own certificate, for the one internal name that programs verify."""
        return self.issue(_SERVER_IDENTITY, public_key, now)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether *certificate* was signed by this authority."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    @classmethod
    def _certify(cls, folder: Path, key: EllipticCurvePrivateKey, now: datetime) -> Authority:
        # The subject follows from the key, so that a certificate made again fits what was issued before.
        name = f"clustersh CA {fingerprint(key.public_key())[:8]}"
        builder = (
            _builder(name, key.public_key(), now - BACKDATED, now + CA_LIFETIME)
            .issuer_name(_common_name(name))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        certificate = builder.sign(key, SHA256())
        save_certificate(folder / _CA_FILE, certificate)
        return cls(key, certificate)


def server_credentials(folder: Path, authority: Authority, now: datetime) -> Credentials:
    """Load or make the coordinator's key in *folder* and a certificate for it.

    The certificate is made again when it is missing or damaged, ends within `RENEW_BEFORE`, isn't valid yet, or is
    another CA's or key's. The key stays. Raises TrustError where the key is damaged or open to others.
    """
    try:
        key = keys.load(folder / _SERVER_KEY_FILE)
    except MissingCredentialsError:
        key = keys.generate()
        keys.save(folder / _SERVER_KEY_FILE, key)
    certificate = _usable_certificate(folder / _SERVER_FILE, key, authority, now)
    if certificate is None:
        certificate = authority.issue_server(key.public_key(), now)
        save_certificate(folder / _SERVER_FILE, certificate)
    return Credentials(key, certificate, authority.certificate)


def _usable_certificate(
    path: Path, key: EllipticCurvePrivateKey, authority: Authority, now: datetime
) -> x509.Certificate | None:
    try:
        certificate = load_certificate(path)
    except TrustError:
        return None
    fits = (
        certificate.public_key() == key.public_key()
        and authority.issued(certificate)
        and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE
    )
    return certificate if fits else None


def _builder(
    subject: str, public_key: EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
