"""What a client keeps in its folder beside its key and certificates."""

from __future__ import annotations

from pathlib import Path

import msgspec

LOGIN_FILE = "login.json"
PENDING_FILE = "pending.json"
"""What a login that waits for its approval leaves (see `pairing_client`, whose import would cost every command)."""


class Login(msgspec.Struct, frozen=True):
    """``client/login.json``: the *coordinator* (``host:port``) that key and certificate beside it are for."""

    coordinator: str


def client_folder(home: Path) -> Path:
    """Return where the key, the certificate and `Login` are."""
    return home / "client"
