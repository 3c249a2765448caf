"""The secrets that are the coordinator's own, and travel nowhere."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from ..home import HomeError, write_private
from ..trust.keys import read_bounded


def own_secret(folder: Path, name: str) -> bytes:
    """Return a secret of the coordinator's own, made at the first start.

    ``digest.key`` is the key of the digests: requests that hold secrets can't be guessed from the ledger. All join
    tokens follow from ``token.key``.
    """
    path = folder / name
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    secret = read_bounded(path, private=True)
    if len(secret) != hashlib.sha256().digest_size:
        raise HomeError(f"{path} is damaged: restore it from a backup, or remove it")
    return secret
