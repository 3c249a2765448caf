"""The bodies of the REST calls about invitations and join tokens."""

from __future__ import annotations

import msgspec

from .jobs import ShortText
from .units import MAX_DURATION_S

DEFAULT_TOKEN_S = 3600.0
MAX_TOKEN_USES = 100_000


class Invitation(msgspec.Struct, frozen=True):
    """What machines know the coordinator by: *server_pin* is curl's ``--pinnedpubkey``, *ca_sha256* the CA's.

    *scripts* has the SHA-256 of each installer as it is served over plain HTTP at *address*.
    """

    address: str
    server_pin: str
    ca_sha256: str
    scripts: dict[str, str]


class CreateToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/admin/tokens: a join token for *uses* machines, good for *ttl_s* seconds."""

    ttl_s: float = DEFAULT_TOKEN_S
    uses: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.ttl_s <= MAX_DURATION_S:
            raise ValueError("a token is good for at least 1 second and at most 366 days")
        if not 1 <= self.uses <= MAX_TOKEN_USES:
            raise ValueError(f"a token is for 1 to {MAX_TOKEN_USES} machines")


class TokenMade(msgspec.Struct, frozen=True):
    """The *token* itself, which is told this once. *policy* is the coordinator's `[enrollment] policy`."""

    id: str
    token: str
    uses: int
    expires: str
    policy: str


class Token(msgspec.Struct, frozen=True):
    """One line of `clusterd token list`. *status* is usable, used-up, expired or revoked."""

    id: str
    status: str
    uses: int
    used: int
    created: str
    expires: str


class Tokens(msgspec.Struct, frozen=True):
    """GET /v1/admin/tokens."""

    tokens: tuple[Token, ...]


class TokenId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/admin/tokens/revoke. *dry_run*: only say whether it could be done."""

    id: ShortText
    dry_run: bool = False
