"""What one REST call is: who may make it, what it takes and answers. `Api` serves them, `openapi` tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias, TypedDict

import msgspec

from ..trust.identity import Role
from ..wire.problems import Kind, Problem
from ..wire.queries import NoQuery
from ..wire.rest import JSON, MAX_BODY

CLIENTS = frozenset({Role.FRONTEND, Role.ADMIN})
"""Who may make a client's calls."""
AGENTS = frozenset({Role.AGENT})
ADMINS = frozenset({Role.ADMIN})
MAX_STRANGER_BODY = 64 << 10
OCTETS = "application/octet-stream"


class Bytes(NamedTuple):
    """A body of at most *limit* bytes, taken as it is."""

    limit: int


class Pieces(NamedTuple):
    """A body that the handler iterates over while it comes (a BodyStream)."""


class Answer(NamedTuple):
    """What to send, where a Struct with status 200 isn't it: *body* may be bytes, or pieces of unknown number."""

    body: msgspec.Struct | bytes | AsyncIterator[bytes]
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Header(NamedTuple):
    """A request header that a call takes; *schema* is its value's, in JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, object]
    required: bool = False


WAIT = Header(
    "Prefer",
    "`wait=N` waits up to N seconds (at most 60) for what is asked for; the answer says `Preference-Applied`.",
    {"type": "string", "pattern": "^wait=[0-9]{1,9}$"},
)
IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "Names the request: the same key with the same request is the same run, however often it is sent.",
    {"type": "string", "pattern": "^[!-~]{1,128}$"},
    required=True,
)
RANGE = Header(
    "Range",
    "One range of bytes of a single stream, without offset, length, tail and follow.",
    {"type": "string", "pattern": "^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$"},
)

Body: TypeAlias = type[msgspec.Struct] | Bytes | Pieces | None
Content: TypeAlias = type[msgspec.Struct] | tuple[str, ...] | None
"""What an answer holds: a Struct as JSON, bytes of one of those media types, or nothing."""
Handler: TypeAlias = Callable[..., Awaitable[Any]]


class Told(TypedDict, total=False):
    """What a route says beyond its handler; see Route."""

    query: type[msgspec.Struct]
    answers: Mapping[int, Content]
    headers: tuple[Header, ...]
    problems: tuple[Kind, ...]
    explain: Callable[[Problem], Answer] | None


class Route(NamedTuple):
    """One call. *roles* is None where it needs no certificate.

    *query* is what its query parameters are read as. *answers*, by status, is there where the handler's return type
    doesn't say it; *problems* are those of this call, beside what any call may be refused for. *explain* makes the
    answer of a problem, for callers who can't read a problem document.
    """

    method: str
    path: str
    handler: Handler
    roles: Collection[Role] | None
    body: Body = None
    query: type[msgspec.Struct] = NoQuery
    answers: Mapping[int, Content] = {}
    headers: tuple[Header, ...] = ()
    problems: tuple[Kind, ...] = ()
    explain: Callable[[Problem], Answer] | None = None

    @property
    def limit(self) -> int:
        """The bytes that its body may have in memory; a call that takes none may still be sent ``{}``."""
        if self.body is None:
            return 16
        if isinstance(self.body, Bytes):
            return self.body.limit
        return MAX_STRANGER_BODY if self.roles is None else MAX_BODY
