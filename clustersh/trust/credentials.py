"""The three files that a program shows itself by: its key, its certificate, and the CA it trusts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_pem_x509_certificate

from ..home import private_folder, write_private
from . import keys
from .errors import CertificateError, TrustError

KEY_FILE = "key.pem"
CERTIFICATE_FILE = "cert.pem"
CA_FILE = "ca.pem"


class Credentials(NamedTuple):
    """A client's or agent's key, its certificate, and the CA that both ends trust."""

    key: EllipticCurvePrivateKey
    certificate: Certificate
    ca: Certificate

    def save(self, folder: Path) -> None:
        """Write the three files into *folder*; the certificate last, so it is there only when all are."""
        keys.save(folder / KEY_FILE, self.key)
        save_certificate(folder / CA_FILE, self.ca)
        save_certificate(folder / CERTIFICATE_FILE, self.certificate)

    @classmethod
    def load(cls, folder: Path, now: datetime) -> Credentials:
        """Read the three files in *folder*.

        Raises MissingCredentialsError where one is missing, TrustError where one is damaged or open to others, the
        key isn't the certificate's, or the certificate isn't valid at *now*.
        """
        credentials = cls(
            keys.load(folder / KEY_FILE),
            load_certificate(folder / CERTIFICATE_FILE),
            load_certificate(folder / CA_FILE),
        )
        if credentials.certificate.public_key() != credentials.key.public_key():
            raise TrustError(f"{folder / CERTIFICATE_FILE} belongs to another key than {folder / KEY_FILE}")
        check_validity(credentials.certificate, now, str(folder / CERTIFICATE_FILE))
        return credentials


def save_certificate(path: Path, certificate: Certificate) -> None:
    """Write *certificate* to *path* (PEM)."""
    private_folder(path.parent)
    write_private(path, certificate.public_bytes(Encoding.PEM))


def load_certificate(path: Path) -> Certificate:
    """Read the certificate at *path* (PEM); raises as `keys.load` does."""
    content = keys.read_bounded(path)
    try:
        return load_pem_x509_certificate(content)
    except ValueError as error:
        raise TrustError(f"{path} is damaged: it holds no usable certificate") from error


def check_validity(certificate: Certificate, now: datetime, what: str) -> None:
    """Raise CertificateError, calling the certificate *what*, unless it is valid at *now*."""
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but {what} is valid only from "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on: set the clock"
        )
    if now > certificate.not_valid_after_utc:
        raise CertificateError(
            f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d} (this machine's clock says {now:%Y-%m-%d})"
        )
