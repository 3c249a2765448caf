"""Login and enrollment bodies, over plain HTTP or TLS, before the caller has a certificate.

::

    POST /pair        PairStart    -> PairOffer      request and commitment; CA and the coordinator's nonce
    POST /pair/{id}   PairReveal   -> PairProgress   the caller's nonce, and the proof of a join token where it has one
    GET  /pair/{id}                -> PairProgress   ``Prefer: wait=N`` waits for the approval
"""

from __future__ import annotations

import enum

import msgspec

from .jobs import ShortText

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


class TokenProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That the caller has the join token *id*, without the token: see `clustersh.trust.tokens`."""

    id: ShortText
    proof: bytes


class PairReveal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The caller's nonce, which its commitment was made of. It may be sent again, then with a *token* too."""

    nonce: bytes
    token: TokenProof | None = None


class PairStatus(enum.StrEnum):
    """How far a pairing is."""

    PENDING = "pending"
    APPROVED = "approved"


class PairProgress(msgspec.Struct, frozen=True):
    """*certificate* (DER) is there once approved, for the name *name*.

    *token_proof* is the coordinator's proof of the token that was shown; *needs_token*: without one, or an approval,
    this machine is not let in.
    """

    status: PairStatus
    name: str
    certificate: bytes = b""
    token_proof: bytes = b""
    needs_token: bool = False
