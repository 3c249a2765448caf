"""The coordinator's REST interface, as programs call it: JSON in and out, bounded, failures that say what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar, overload

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from .address import Address
from .http_bodies import BodyReader, BodyWriter, Collector, Watch
from .rest_requests import CONNECT_S, Query, Requests
from .unreachable import Cause, Unreachable, explain, not_a_coordinator
from .wire.codec import WireError, decode_json, encode_json
from .wire.problems import Problem, ProblemError
from .wire.rest import JSON, PROBLEM_JSON

__all__ = ["ANSWER_LIMIT", "Cause", "Collector", "Query", "RestClient", "Unreachable"]

T = TypeVar("T")
ANSWER_LIMIT = 64 << 20
"""Bytes of an answer that `RestClient.call` reads; streams have no limit."""


class RestClient:
    """One coordinator, over mutual TLS with *policy*, or over plain HTTP without one. Connections are kept.

    *answer_limit* is in bytes; *clock* is what kept connections age by, if it isn't *reactor*.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        address: Address,
        policy: IPolicyForHTTPS | None,
        *,
        answer_limit: int = ANSWER_LIMIT,
        clock: IReactorTime | None = None,
    ) -> None:
        self.address = address
        self._reactor = reactor
        self._answer_limit = answer_limit
        self._requests = Requests(reactor, address, policy, clock or reactor)

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._requests.secure

    @overload
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> None: ...
    @overload
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        answer: type[T],
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> T: ...
    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        answer: type[T] | None = None,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> T | None:
        """Send *body* and return the answer as *answer*: bytes as they come (None without it: read and dropped).

        *path* is percent-encoded by the caller (`quote`), *query* is encoded here. *body* is sent as JSON; bytes go as
        they are. *wait_s* becomes ``Prefer: wait=``, and *timeout_s* begins after it. Raises ProblemError for what the
        coordinator refuses, Unreachable where no whole answer came.
        """
        content, kind = _encode(body)
        given = {"Content-Type": kind, **(headers or {})} if content is not None else dict(headers or {})
        if wait_s > 0:
            given["Prefer"] = f"wait={wait_s:g}"

        lost = False

        async def exchange(touch: Callable[[bool], None]) -> bytes:
            def note_lost() -> None:
                nonlocal lost
                lost = True
                touch(True)

            response = await self._requests.send(method, path, content, query, given, wait_s, note_lost)
            received = await self._read_whole(response)
            _raise_problem(self.address, response, received)
            return received

        try:
            received = await self._watched(exchange, wait_s + timeout_s)
        except Unreachable as error:
            error.sent = error.sent or lost
            raise
        if answer is None:
            return None
        if isinstance(received, answer):
            return received
        try:
            return decode_json(received, answer)
        except WireError as error:
            raise not_a_coordinator(self.address, str(error)) from error

    async def stream(
        self,
        method: str,
        path: str,
        collect: Collector,
        *,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        begin: Callable[[Mapping[str, str]], None] | None = None,
        idle_s: float = 90.0,
    ) -> Mapping[str, str]:
        """Give each piece of a large answer to *collect*, in order, and return the answer's headers (lower-case names).

        *begin* gets the same headers before the first piece. While *collect* is awaited the connection is paused. More
        than *idle_s* without a byte (while not paused) raises Unreachable, as does an answer that is cut off.
        """

        async def exchange(touch: Callable[[bool], None]) -> Mapping[str, str]:
            response = await self._requests.send(method, path, None, query, headers or {})
            touch(True)
            if response.code >= 400:
                _raise_problem(self.address, response, await self._read_whole(response))
            found = _headers(response)
            if begin is not None:
                begin(found)
            await _read(response, collect, touch)
            return found

        return await self._watched(exchange, idle_s)

    async def upload(self, path: str, size: int, chunks: AsyncIterator[bytes], *, idle_s: float = 60.0) -> None:
        """PUT exactly *size* bytes from *chunks*, as fast as the connection takes them.

        Raises as `call` does, and what *chunks* raises; ValueError where it has more or fewer bytes.
        """

        async def exchange(touch: Callable[[bool], None]) -> None:
            body = BodyWriter(size, chunks, lambda: touch(True))
            response = await self._requests.send("PUT", path, body, (), {"Content-Type": "application/octet-stream"})
            _raise_problem(self.address, response, await self._read_whole(response))

        await self._watched(exchange, idle_s)

    async def keep_open(self) -> None:
        """Have a connection that is alive for the next request. Raises Unreachable where there can't be one."""
        if not await self._requests.kept.prove():
            await self.call("HEAD", "/health", timeout_s=CONNECT_S)

    async def close(self) -> None:
        """Close the kept connections."""
        await self._requests.kept.closeCachedConnections()

    async def _read_whole(self, response: IResponse) -> bytes:
        received = bytearray()

        def keep(piece: bytes) -> None:
            if len(received) + len(piece) > self._answer_limit:
                raise not_a_coordinator(self.address, f"an answer of more than {self._answer_limit} bytes")
            received.extend(piece)

        await _read(response, keep, lambda _waiting: None)
        return bytes(received)

    async def _watched(self, exchange: Callable[[Callable[[bool], None]], Coroutine[Any, Any, T]], seconds: float) -> T:
        """Await *exchange*, which is cancelled *seconds* after it last said that it gets on.

        Whoever cancels the waiting gets CancelledError, not what becomes of a request that is cut off.
        """

        def touch(waiting: bool) -> None:
            if waiting:
                watch.touch()
            else:
                watch.stop()

        watch = Watch(self._reactor, seconds, lambda: running.cancel())
        running = Deferred.fromCoroutine(exchange(touch))
        given_up = False

        def give_up(_waiting: Deferred[T]) -> None:
            nonlocal given_up
            given_up = True
            running.cancel()

        waiting: Deferred[T] = Deferred(give_up)
        running.chainDeferred(waiting)
        try:
            return await waiting
        except (ProblemError, Unreachable):
            raise
        except Exception as error:
            if given_up:
                raise CancelledError from error
            told = explain(error, self.address, seconds if watch.expired else None)
            if told is error:
                raise
            raise told from error
        finally:
            watch.stop()


async def _read(response: IResponse, collect: Collector, progress: Callable[[bool], None]) -> None:
    if response.length == 0:
        return
    reader = BodyReader(collect, progress)
    response.deliverBody(reader)
    await reader.done


def _encode(body: object) -> tuple[bytes | None, str]:
    if body is None:
        return None, ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    return encode_json(body), JSON


def _headers(response: IResponse) -> Mapping[str, str]:
    return {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }


def _raise_problem(address: Address, response: IResponse, received: bytes) -> None:
    if 200 <= response.code < 300:
        return
    if _headers(response).get("content-type", "").partition(";")[0].strip() == PROBLEM_JSON:
        try:
            raise ProblemError.received(msgspec.json.decode(received, type=Problem))
        except msgspec.DecodeError as error:
            raise not_a_coordinator(address, f"HTTP {response.code}, a problem that can't be read") from error
    raise not_a_coordinator(address, f"HTTP {response.code}")
