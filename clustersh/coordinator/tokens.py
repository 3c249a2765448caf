"""Join tokens: which there are, how often each may still be used, and whether a machine really has one.

A use is the ledger's record that lets the machine in (`Enrolled.token`): there is nothing in between that a crash
could leave half done. While such a record is being written, its use is held, so that nobody else gets it.
"""

from __future__ import annotations

import contextlib
import hmac
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from twisted.internet.defer import Deferred

from ..trust.tokens import TOKEN_ID_BYTES, JoinToken, make_token
from ..wire.joining import Token
from ..wire.pairing import TokenProof
from ..wire.problems import Kind, ProblemError
from ..wire.units import parse_timestamp, timestamp
from .index import Index
from .ledger_files import Entry
from .records import Enrolled, Record, Renamed, TokenCreated, TokenRevoked

MAX_TOKENS = 10_000
KEPT_S = 7 * 86400.0
"""Seconds that a token is still listed after its end: it is told then why it isn't taken."""
_ANOTHER = "get another, on the coordinator: clusterd token create"


class Recorder(Protocol):
    """The ledger."""

    def append(self, record: Record) -> Deferred[Entry]:
        """Fires once *record* is durable."""


@dataclass(frozen=True)
class _Known:
    """A token as the ledger has it; times are RFC 3339, *revoked* is "" where it wasn't."""

    id: str
    uses: int
    created: str
    expires: str
    used: int = 0
    revoked: str = ""


class JoinTokens:
    """Every token. *key* is the coordinator's own secret, *now* the time since 1970, *random* gives random bytes."""

    def __init__(self, ledger: Recorder, key: bytes, now: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._key = key
        self._now = now
        self._random = random
        self._tokens: dict[str, _Known] = {}
        self._held: dict[str, int] = {}

    async def load(self, index: Index) -> None:
        """Read from the index what there was before."""
        since = timestamp(self._now() - KEPT_S)
        for token in await index.ask(lambda connection: _read(connection, since)):
            self._tokens[token.id] = token

    def follow(self, entry: Entry) -> None:
        """Take in *entry*, which is durable now."""
        record = entry.record
        if isinstance(record, TokenCreated):
            self._tokens[record.token] = _Known(record.token, record.uses, entry.time, record.expires)
        elif isinstance(record, TokenRevoked) and record.token in self._tokens:
            self._tokens[record.token] = replace(self._tokens[record.token], revoked=entry.time)
        elif isinstance(record, Enrolled | Renamed) and record.token in self._tokens:
            known = self._tokens[record.token]
            self._tokens[record.token] = replace(known, used=known.used + 1)

    # -- the admin's

    async def create(self, ttl_s: float, uses: int) -> tuple[JoinToken, str]:
        """Make a token for *uses* machines; return it and when it ends. Raises ProblemError."""
        self._drop_old()
        if len(self._tokens) >= MAX_TOKENS:
            raise ProblemError(
                Kind.RATE_LIMITED, f"there are {MAX_TOKENS} tokens already", hint="wait until some of them end"
            )
        made = make_token(self._key, self._random(TOKEN_ID_BYTES).hex())
        expires = timestamp(self._now() + ttl_s)
        await self._ledger.append(TokenCreated(made.id, uses, expires))
        return made, expires

    async def revoke(self, id_: str, *, dry_run: bool = False) -> None:
        """Let nobody in with that token any more; with *dry_run* only look. Raises ProblemError (unknown-token)."""
        known = self._tokens.get(id_.strip().lower())
        if known is None or known.revoked:
            why = f"the token {known.id} was revoked already" if known else f"there is no token {id_!r}"
            raise ProblemError(Kind.UNKNOWN_TOKEN, why, hint="see: clusterd token list")
        if not dry_run:
            await self._ledger.append(TokenRevoked(known.id))

    def list(self) -> list[Token]:
        """Return every token, those that ended some days ago left out, oldest first."""
        self._drop_old()
        known = sorted(self._tokens.values(), key=lambda token: token.created)
        return [
            Token(token.id, self._status(token), token.uses, token.used, token.created, token.expires)
            for token in known
        ]

    # -- a machine's

    def answer(self, shown: TokenProof, transcript: bytes) -> bytes | None:
        """Return the coordinator's own proof for *transcript*; None unless *shown* proves that token, made here."""
        token = make_token(self._key, shown.id)
        return token.answer(transcript) if hmac.compare_digest(token.proof(transcript), shown.proof) else None

    @contextlib.contextmanager
    def held(self, id_: str) -> Iterator[None]:
        """Hold one use of a token while the record that uses it is written. Raises ProblemError where none is left."""
        self._check(id_)
        self._held[id_] = self._held.get(id_, 0) + 1
        try:
            yield
        finally:
            self._held[id_] -= 1
            if not self._held[id_]:
                del self._held[id_]

    def _check(self, id_: str) -> None:
        known = self._tokens.get(id_)
        if known is None:
            raise ProblemError(Kind.WRONG_TOKEN, f"the coordinator knows no token {id_} (any more)", hint=_ANOTHER)
        status = self._status(known)
        if status == "usable" and known.used + self._held.get(id_, 0) >= known.uses:
            status = "used-up"
        if status != "usable":
            reason = {
                "expired": f"ended at {known.expires}, by the coordinator's clock",
                "revoked": "was revoked",
                "used-up": f"is used up: it was for {known.uses} machine{'' if known.uses == 1 else 's'}",
            }[status]
            raise ProblemError(Kind.WRONG_TOKEN, f"the join token {id_} {reason}", hint=_ANOTHER)

    def _status(self, token: _Known) -> str:
        if token.revoked:
            return "revoked"
        if self._now() >= parse_timestamp(token.expires):
            return "expired"
        return "used-up" if token.used >= token.uses else "usable"

    def _drop_old(self) -> None:
        since = self._now() - KEPT_S
        for token in [token for token in self._tokens.values() if parse_timestamp(token.expires) <= since]:
            del self._tokens[token.id]


def _read(connection: sqlite3.Connection, since: str) -> list[_Known]:
    rows = connection.execute("SELECT * FROM tokens WHERE expires > ? ORDER BY created", (since,))
    return [_Known(row["id"], row["uses"], row["created"], row["expires"], row["used"], row["revoked"]) for row in rows]
