"""A coordinator's one port in a test: real sockets and TLS, with answers that the test makes up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from clustersh.address import Address
from clustersh.coordinator.door import DoorFactory
from clustersh.trust import keys
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.credentials import Credentials
from clustersh.trust.identity import Identity, Role
from clustersh.trust.tls import server_context_factory
from clustersh.wire.problems import ProblemError

reactor: Any = global_reactor


class Answer(NamedTuple):
    content: bytes = b""
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = MappingProxyType({})


class Asked(NamedTuple):
    method: str
    path: str
    body: bytes
    request: Request
    peer_port: int


Handler = Callable[[Asked], "Answer | object | Awaitable[Any]"]


class _Everything(Resource):
    isLeaf = True

    def __init__(self, handler: Handler, asked: list[Asked], proofs: bool) -> None:
        super().__init__()
        self._handler = handler
        self._asked = asked
        self._proofs = proofs

    def render(self, request: Request) -> int | bytes:
        if request.method == b"HEAD" and not self._proofs:
            return b""
        body = request.content.read()
        asked = Asked(request.method.decode(), request.uri.decode(), body, request, request.getClientAddress().port)
        self._asked.append(asked)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        done = maybeDeferred(self._handler, asked)

        def finish(result: Any) -> None:
            if gone:
                return
            answer = result if isinstance(result, Answer) else Answer(msgspec.json.encode(result))
            request.setResponseCode(answer.status)
            request.setHeader("Content-Type", answer.kind)
            for name, value in answer.headers.items():
                request.setHeader(name, value)
            request.write(answer.content) if answer.content else None
            request.finish()

        def refuse(failure: Any) -> Answer:
            failure.trap(ProblemError)
            problem = failure.value.problem
            return Answer(msgspec.json.encode(problem), problem.status, "application/problem+json")

        done.addErrback(refuse).addCallback(lambda result: None if result is NOT_DONE_YET else finish(result))
        return NOT_DONE_YET


class FakeCoordinator:
    """Answers everything with *handler*, over plain HTTP and TLS on one port; `asked` is what came.

    By *proofs* that goes for what kept connections are asked, too, to see whether they are alive.
    """

    def __init__(self, folder: Path, handler: Handler, context: Any = None, *, proofs: bool = False) -> None:
        now = datetime.now(UTC)
        self.authority = Authority.open(folder, now)
        self.handler = handler
        self.asked: list[Asked] = []
        everything = _Everything(lambda asked: self.handler(asked), self.asked, proofs)
        self.site = Site(everything, parsePOSTFormSubmission=False)
        credentials = server_credentials(folder, self.authority, now)
        self._door = DoorFactory(reactor, self.site, context or server_context_factory(credentials))
        self._port = reactor.listenTCP(0, self._door, interface="127.0.0.1")
        self.address = Address("127.0.0.1", self._port.getHost().port)

    def credentials(self, role: Role = Role.FRONTEND, name: str = "joshua@mba") -> Credentials:
        key = keys.generate()
        certificate = self.authority.issue(Identity(role, name, "c-1"), key.public_key(), datetime.now(UTC))
        return Credentials(key, certificate, self.authority.certificate)

    async def stop(self) -> None:
        await maybeDeferred(self._port.stopListening)


def later(seconds: float = 0.0) -> Deferred[None]:
    """Fire after *seconds*: only to let the reactor turn."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done
