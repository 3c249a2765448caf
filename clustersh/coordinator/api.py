"""The table of REST calls: who may make each, what it takes, and how answers and errors go out.

A handler is ``async def handler(request, caller, **parts)`` (without *caller* where no certificate is needed); *parts*
are the variables in the path, and *body* and *query* where the call takes them. What it returns is sent: a Struct as
JSON, None as 204, an Answer for the rest, or a resource that takes the connection over. The first line of its docstring
is what the API's description says of the call.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Unpack

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from ..trust.identity import Role
from ..wire.codec import WireError, decode_json, encode_json
from ..wire.problems import Kind, ProblemError
from ..wire.queries import NoQuery
from ..wire.rest import JSON
from .addresses import IpAddress
from .bodies import BodyStream, ClientGone
from .callers import Gate, plain_http
from .http import Request, path_text, too_large
from .pieces import send_pieces
from .refusals import Refusals
from .router import Place, Router
from .routes import Answer, Body, Bytes, Handler, Pieces, Route, Told


class Api:
    """All calls, behind one gate."""

    def __init__(self, gate: Gate, came: Callable[[str, IpAddress, int], None] | None = None) -> None:
        self._log = Logger()
        self._gate = gate
        self._came = came
        self._router = Router()
        self._routes: list[Route] = []

    @property
    def refusals(self) -> Refusals:
        """Where refused callers are counted."""
        return self._gate.refusals

    @property
    def routes(self) -> Collection[Route]:
        """All calls added so far."""
        return self._routes

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        roles: Collection[Role],
        body: Body = None,
        **told: Unpack[Told],
    ) -> None:
        """Have *handler* answer *method* on *path* (``/v1/jobs/<machine>``) to trusted callers with one of *roles*."""
        self._add(Route(method, path, handler, roles, body, **told))

    def add_open(self, method: str, path: str, handler: Handler, body: Body = None, **told: Unpack[Told]) -> None:
        """Have *handler* answer strangers from near addresses, over plain HTTP too."""
        self._add(Route(method, path, handler, None, body, **told))

    def serve(self, request: Request) -> None:
        """Answer *request*, whose body is in. Nothing is cut off in the middle when the client goes."""
        try:
            route, parts = self._match(request)
        except ProblemError as error:
            request.send_problem(error.problem)
            request.finish()
            return
        Deferred.fromCoroutine(self._serve(request, route, parts)).addErrback(request.processingFailed)

    def expect_body(self, request: Request, size: int | None) -> None:
        """See that the caller may send a body of *size* bytes (None: chunked), and set where it goes."""
        route, parts = self._match(request)
        self._admit(request, route)
        if route.method == "GET":
            raise _no_body()
        if isinstance(route.body, Pieces):
            if size is None:
                raise ProblemError(Kind.BAD_REQUEST, "say how long the body is (Content-Length)")
            self._take_pieces(request, route, dict(parts, **_query(request, route)), size)
            return
        if size is not None and size > route.limit:
            raise too_large(route.limit)
        request.limit = route.limit

    def _add(self, route: Route) -> None:
        self._router.add(route)
        self._routes.append(route)

    def _match(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        """Return the request's route and the variables in its path: looked up once, also where its body comes later."""
        if request.matched is None:
            place = self._router.find(path_text(request.path))
            route = None if place is None else place.route(request.method.decode("latin-1"))
            if place is None or route is None:
                raise self._unroutable(request, place)
            request.matched = route, place.parts
        return request.matched

    # -- one request

    async def _serve(self, request: Request, route: Route, parts: Mapping[str, Any]) -> None:
        answer = await self._answer(request, route, parts)
        if isinstance(answer, Answer):
            await _send(request, answer)
        elif answer is not None:
            request.render(answer)
            return
        if not request.gone and not request.finished:
            request.finish()

    async def _answer(self, request: Request, route: Route, parts: Mapping[str, Any]) -> Answer | IResource | None:
        """Return what to send; None where that was done, or nobody is left to send it to."""
        try:
            self._admit(request, route)
            parts = dict(parts, **_query(request, route))
            if isinstance(route.body, Pieces) and request.answer is None:
                self._take_pieces(request, route, parts, 0)
            work = request.answer or self._call(request, route, dict(parts, **self._body(request, route)))
            return _encoded(await work)
        except (ClientGone, CancelledError):
            return None
        except Exception as error:
            problem = self._as_problem(request, error).problem
            if route.explain is None:
                request.send_problem(problem)
                return None
            answer = route.explain(problem)
        if not isinstance(answer, Answer):
            return answer
        await _send(request, answer)
        return None

    def _admit(self, request: Request, route: Route) -> None:
        if route.roles is None:
            self._gate.admit_stranger(request)
        elif request.caller is None:
            request.caller = self._gate.admit(request, route.roles)
            if self._came is not None:
                self._came(request.caller.fingerprint, request.peer, request.peer_port)
        if isinstance(route.body, type):
            _check_json(request)

    def _body(self, request: Request, route: Route) -> dict[str, object]:
        if isinstance(route.body, Bytes):
            return {"body": request.content.read()}
        if isinstance(route.body, type):
            return {"body": decode_json(request.content.read(), route.body)}
        if request.content.read().strip() not in (b"", b"{}"):
            raise _no_body()
        return {}

    def _call(self, request: Request, route: Route, parts: Mapping[str, Any]) -> Awaitable[object]:
        if route.roles is None:
            return route.handler(request, **parts)
        return route.handler(request, request.caller, **parts)

    def _take_pieces(self, request: Request, route: Route, parts: Mapping[str, Any], size: int) -> None:
        """Begin to answer while the body comes; a refusal needn't wait for its end."""
        stream = BodyStream(request.transport, size)
        if size == 0:
            stream.ended()
        else:
            request.stream = stream
        work = self._call(request, route, dict(parts, body=stream))
        assert inspect.iscoroutine(work)
        request.answer = Deferred.fromCoroutine(work)
        request.answer.addCallbacks(
            _drop_rest, self._refuse_rest, callbackArgs=(stream,), errbackArgs=(request, stream)
        )

    def _refuse_rest(self, failure: Failure, request: Request, stream: BodyStream) -> Failure | None:
        if stream.complete:
            return failure
        if not request.gone and failure.value is not None:
            request.refuse(self._as_problem(request, failure.value).problem)
        return None

    # -- errors

    def _as_problem(self, request: Request, error: BaseException) -> ProblemError:
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, WireError):
            return ProblemError(Kind.BAD_REQUEST, f"the body can't be read: {error}")
        reference = secrets.token_hex(4)
        self._log.failure(
            "internal error {reference} in {method} {path}",
            Failure(error),
            reference=reference,
            method=request.method.decode(errors="replace"),
            path=request.path.decode(errors="replace"),
        )
        return ProblemError(
            Kind.INTERNAL,
            "the coordinator failed to answer",
            hint=f"its log says why, at: internal error {reference}",
            started=None if request.method == b"POST" else False,
        )

    def _unroutable(self, request: Request, place: Place | None) -> ProblemError:
        if not request.secure:
            self._gate.refusals.note(str(request.peer), "plain http")
            return plain_http()
        if place is not None:
            allowed = ", ".join(place.methods)
            request.setHeader("Allow", allowed)
            return ProblemError(Kind.METHOD_NOT_ALLOWED, f"this path takes {allowed}")
        return ProblemError(Kind.NOT_FOUND, "there is no such call", hint="docs/rest.md lists them")


def _query(request: Request, route: Route) -> dict[str, msgspec.Struct]:
    query = request.query(route.query)
    return {} if isinstance(query, NoQuery) else {"query": query}


def _no_body() -> ProblemError:
    return ProblemError(Kind.BAD_REQUEST, "this call takes no body")


def _check_json(request: Request) -> None:
    kind = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise ProblemError(Kind.BAD_REQUEST, f"the body must be {JSON} (Content-Type)")


def _drop_rest(returned: object, stream: BodyStream) -> object:
    """Let the sender come to its end, although nobody wants the rest."""
    stream.discard()
    return returned


def _encoded(returned: object) -> Answer | IResource:
    """Return what a handler returned as it will be sent: with bytes or pieces as its body."""
    if returned is None:
        return Answer(b"", 204, "")
    if IResource.providedBy(returned):
        resource: IResource = returned
        return resource
    answer = returned if isinstance(returned, Answer) else Answer(_struct(returned))
    return answer._replace(body=encode_json(answer.body)) if isinstance(answer.body, msgspec.Struct) else answer


def _struct(returned: object) -> msgspec.Struct:
    assert isinstance(returned, msgspec.Struct), f"a handler returned {type(returned).__name__}"
    return returned


async def _send(request: Request, answer: Answer) -> None:
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    if isinstance(answer.body, bytes):
        request.send(answer.body, answer.status, answer.content_type)
        return
    assert not isinstance(answer.body, msgspec.Struct)
    request.begin_answer(answer.status, answer.content_type)
    await send_pieces(request, answer.body)
