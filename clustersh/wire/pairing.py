"""Login and enrollment bodies, over plain HTTP or TLS, before the caller has a certificate.

::

    POST /pair        PairStart    -> PairOffer      request and commitment; CA and the coordinator's nonce
    POST /pair/{id}   PairReveal   -> PairProgress   the caller's nonce
    GET  /pair/{id}                -> PairProgress   ``Prefer: wait=N`` waits for the approval
"""

from __future__ import annotations

import enum

import msgspec

PENDING_S = 600.0
"""Seconds that an unapproved request is kept."""


class PairStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """*request* is a certificate request (DER); *commitment* is SHA-256 of the caller's nonce."""

    role: str
    request: bytes
    commitment: bytes


class PairOffer(msgspec.Struct, frozen=True):
    """*ca* is the coordinator's CA certificate (DER), *nonce* its 32 bytes. *host* is where to run the approval."""

    id: str
    ca: bytes
    nonce: bytes
    host: str = ""


class PairReveal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The caller's nonce, which its commitment was made of."""

    nonce: bytes


class PairStatus(enum.StrEnum):
    """How far a pairing is."""

    PENDING = "pending"
    APPROVED = "approved"


class PairProgress(msgspec.Struct, frozen=True):
    """*certificate* (DER) is there once approved, for the name *name*."""

    status: PairStatus
    name: str
    certificate: bytes = b""
