"""HTTP/1.1 with everything bounded: the site and its requests.

A body is admitted when its headers are in, so a caller that may not call sends nothing that is kept; an answer given
that early ends the connection.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import cache
from io import BytesIO
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote_to_bytes
from weakref import WeakKeyDictionary

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString
from twisted.web.resource import Resource

from ..cli.text import printable
from ..trust.identity import Identity
from ..wire.codec import encode_json
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.rest import MAX_WAIT_S, PROBLEM_JSON
from .addresses import IpAddress, plain_address
from .bodies import BodyStream, ClientGone
from .callers import Caller
from .channel import REQUEST_S, Channel
from .refusals import Refusals
from .routes import Route
from .turns import Turns

T = TypeVar("T")
Q = TypeVar("Q", bound=msgspec.Struct)
MAX_PARAMETERS = 100

_HEADERS = {
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": b"default-src 'none'",
    b"Server": b"clustersh",
    b"X-Content-Type-Options": b"nosniff",
}


class Calls(Protocol):
    """What answers requests."""

    def expect_body(self, request: Request, size: int | None) -> None:
        """See that *request* may send a body of *size* bytes (None: chunked), and set where it goes.

        Raises ProblemError.
        """

    @property
    def refusals(self) -> Refusals:
        """Where refused connections are counted."""

    def serve(self, request: Request) -> None:
        """Answer *request*, whose body is in."""


class Request(server.Request):
    """One request. *limit* bounds a body that is kept in memory; *stream* is one that is taken in pieces."""

    defaultContentType = None
    channel: Channel
    transport: Any
    content: BytesIO

    matched: tuple[Route, Mapping[str, str]] | None = None
    caller: Caller | None = None
    limit = 0
    stream: BodyStream | None = None
    answer: Deferred[Any] | None = None
    gone = False

    def begin(self, method: bytes, uri: bytes, version: bytes) -> None:
        """Know the request line before the body comes."""
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.partition(b"?")[0]

    @property
    def secure(self) -> bool:
        """Whether this came over TLS."""
        return bool(self.isSecure())

    @property
    def peer(self) -> IpAddress:
        """The other end's address."""
        return self.channel.peer

    @property
    def peer_port(self) -> int:
        """The other end's port."""
        return int(getattr(self.client, "port", 0))

    @property
    def local(self) -> IpAddress:
        """This end's address."""
        return plain_address(self.host.host)

    @property
    def certified(self) -> tuple[Identity, str] | None:
        """Whom the peer's certificate names. Raises CertificateError."""
        return self.channel.certified

    def query(self, kind: type[Q]) -> Q:
        """Return the query parameters as *kind*; of one that is given twice the last counts. Raises ProblemError."""
        text = self.uri.partition(b"?")[2].decode("ascii", "replace")
        try:
            found = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
        except ValueError as error:
            raise ProblemError(Kind.BAD_REQUEST, "the query can't be read") from error
        repeatable = _repeatable(kind)
        given = {name: values if name in repeatable else values[-1] for name, values in found.items()}
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ProblemError(Kind.BAD_REQUEST, f"the query can't be read: {error}") from error

    def until_gone(self) -> Deferred[None]:
        """Return what fires when the client closes its connection; cancel it where nobody waits any more."""
        gone: Deferred[None] = Deferred()
        if self.gone:
            gone.callback(None)
            return gone
        self.notifyFinish().addErrback(lambda _: None if gone.called else gone.callback(None))
        return gone

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """Await *work*, but cancel it when the client goes. Raises ClientGone then.

        For what waits and reads; nothing that changes anything may be cut off in the middle.
        """
        working = Deferred.fromCoroutine(work)
        gone = self.until_gone()
        gone.addCallbacks(lambda _: working.cancel(), lambda _: None)
        try:
            return await working
        except CancelledError as error:
            if self.gone:
                raise ClientGone from error
            raise
        finally:
            gone.cancel()

    def spare(self) -> None:
        """Keep this connection when those with its key are cut: it has to carry the answer that says so."""
        self.channel.site.connections.pop(self.channel, None)

    # -- the body

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length != 0:
            try:
                self.channel.site.calls.expect_body(self, length)
            except ProblemError as error:
                self.refuse(error.problem)

    def handleContentChunk(self, data: bytes) -> None:
        if self.finished:
            return
        if self.stream is not None:
            self.stream.received(data)
        elif self.content.tell() + len(data) > self.limit:
            self.refuse(too_large(self.limit).problem)
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.stream is not None:
            self.stream.ended()
        super().requestReceived(command, path, version)

    def connectionLost(self, reason: Failure) -> None:
        self.gone = True
        if self.stream is not None:
            self.stream.lost()
        super().connectionLost(reason)

    # -- the answer

    def refuse(self, problem: Problem) -> None:
        """Answer although the body isn't in, and end the connection."""
        self.requestHeaders.removeHeader(b"Expect")
        self.setHeader(b"Connection", b"close")
        self.channel.refuse()
        if self.stream is not None:
            self.stream.discard()
        self.send_problem(problem)
        self.finish()

    def process(self) -> None:
        self.site = self.channel.site
        self.channel.site.calls.serve(self)

    def send_problem(self, problem: Problem) -> None:
        """Send *problem* as the whole answer."""
        # A refused agent sees only the first line of it: its WebSocket reads no bodies.
        phrase = printable(problem.detail).encode("ascii", "replace")[:200] if problem.status in (401, 403) else None
        self.send(encode_json(problem), problem.status, PROBLEM_JSON, phrase)

    def send(self, content: bytes, status: int, content_type: str, phrase: bytes | None = None) -> None:
        """Send *content* as the whole answer, unless the client is gone; *phrase* tells people what *status* means."""
        if not self.gone:
            self.begin_answer(status, content_type, phrase)
            self.setHeader(b"Content-Length", b"%d" % len(content))
            self.write(content)

    def begin_answer(self, status: int, content_type: str, phrase: bytes | None = None) -> None:
        """Set what every answer has."""
        self.setResponseCode(status, phrase)
        self.setHeader(b"Date", datetimeToString())
        for name, value in _HEADERS.items():
            self.setHeader(name, value)
        if content_type:
            self.setHeader(b"Content-Type", content_type.encode())


class Site(server.Site):
    """Serves *calls* on every connection; HTTP/1.1 only, whatever else is installed."""

    protocol = Channel  # type: ignore[assignment]  # without Twisted's switch to HTTP/2
    requestFactory = Request
    noisy = False

    def __init__(self, reactor: Any, calls: Calls) -> None:
        super().__init__(Resource(), reactor=reactor, timeout=REQUEST_S, parsePOSTFormSubmission=False)
        self.calls = calls
        self.connections: WeakKeyDictionary[Channel, str] = WeakKeyDictionary()
        self.turns = Turns(reactor)

    def cut(self, fingerprint: str) -> None:
        """Close every connection whose peer has that key; a WebSocket that took one over is not among them."""
        for channel, key in list(self.connections.items()):
            if key == fingerprint and channel.transport is not None:
                channel.transport.abortConnection()

    def log(self, request: Any) -> None:
        """Write no access log: what matters is in the ledger, and refusals are logged."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


def path_text(path: bytes) -> str:
    """Return the path of a request line, unquoted. Raises ProblemError where that is no text."""
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ProblemError(Kind.BAD_REQUEST, "the path is not UTF-8") from error


@cache
def _repeatable(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Return which of a query's parameters may be given more than once."""
    return frozenset(field.name for field in msgspec.structs.fields(kind) if isinstance(field.default, tuple))


def too_large(limit: int) -> ProblemError:
    """The refusal of a body over *limit* bytes."""
    return ProblemError(Kind.TOO_LARGE, f"the body is too large: at most {limit} bytes")


def wait_seconds(request: Request) -> float:
    """Return how long the caller asks to wait (``Prefer: wait=SECONDS``), at most MAX_WAIT_S; 0 where it doesn't.

    The answer's ``Preference-Applied`` says so.
    """
    for header in request.requestHeaders.getRawHeaders(b"Prefer", []):
        for preference in header.split(b","):
            name, _, value = preference.partition(b";")[0].partition(b"=")
            text = value.strip().strip(b'"')
            if name.strip().lower() == b"wait" and text.isdigit() and len(text) < 10:
                seconds = min(float(text), MAX_WAIT_S)
                request.setHeader(b"Preference-Applied", b"wait=%d" % seconds)
                return seconds
    return 0.0
