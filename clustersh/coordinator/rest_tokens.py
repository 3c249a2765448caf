"""An admin's calls about join tokens."""

from __future__ import annotations

from ..wire.joining import CreateToken, TokenId, TokenMade, Tokens
from ..wire.problems import Kind
from .api import Api
from .callers import Caller
from .http import Request
from .routes import ADMINS
from .tokens import JoinTokens


class TokenCalls:
    """``/v1/admin/tokens``; *policy* is the enrollment's."""

    def __init__(self, tokens: JoinTokens, policy: str) -> None:
        self._tokens = tokens
        self._policy = policy

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        path, full = "/v1/admin/tokens", (Kind.RATE_LIMITED, Kind.STORAGE)
        api.add("POST", path, self.create_token, ADMINS, CreateToken, problems=full)
        api.add("GET", path, self.tokens, ADMINS)
        ended = (Kind.UNKNOWN_TOKEN, Kind.STORAGE)
        api.add("POST", f"{path}/revoke", self.revoke_token, ADMINS, TokenId, problems=ended)

    async def create_token(self, request: Request, caller: Caller, body: CreateToken) -> TokenMade:
        """Make a join token, which is told this once."""
        made, expires = await self._tokens.create(body.ttl_s, body.uses)
        return TokenMade(made.id, made.text, body.uses, expires, self._policy)

    async def tokens(self, request: Request, caller: Caller) -> Tokens:
        """List the join tokens, without their secrets."""
        return Tokens(tuple(self._tokens.list()))

    async def revoke_token(self, request: Request, caller: Caller, body: TokenId) -> None:
        """Let nobody in with a join token any more."""
        await self._tokens.revoke(body.id, dry_run=body.dry_run)
