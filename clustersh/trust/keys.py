"""P-256 keys and the private files they are kept in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ..home import private_folder, write_private
from .errors import ExposedKeyError, MissingCredentialsError, TrustError

_FILE_LIMIT = 64 * 1024
"""Bytes; a key or certificate has less than 4 KiB."""


def generate() -> ec.EllipticCurvePrivateKey:
    """Make a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def is_p256(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Whether *key* is a public key on P-256, the only kind that is trusted here."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def save(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write *key* to *path* (PEM), readable only by its owner."""
    private_folder(path.parent)
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key at *path*.

    Raises MissingCredentialsError where there is none, TrustError where it is damaged, no P-256 key, or open to others.
    """
    content = read_bounded(path, private=True)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise TrustError(f"{path} is damaged: it holds no usable private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_p256(key.public_key()):
        raise TrustError(f"{path} holds another kind of key; clustersh uses P-256 keys")
    return key


def read_bounded(path: Path, *, private: bool = False) -> bytes:
    """Read the small file *path*; with *private*, raise ExposedKeyError if its group or others may use it."""
    try:
        with path.open("rb") as file:
            # The open file is asked, not its name: it can't be swapped in between.
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_FILE_LIMIT + 1)
    except FileNotFoundError as error:
        raise MissingCredentialsError(f"there is no {path}") from error
    except OSError as error:
        raise TrustError(f"can't read {path}: {error.strerror}") from error
    if private and os.name == "posix" and mode & 0o077:
        raise ExposedKeyError(f"other users may read the private key {path}; run: chmod 600 {path}")
    if len(content) > _FILE_LIMIT:
        raise TrustError(f"{path} is damaged: it is over {_FILE_LIMIT} bytes")
    return content
