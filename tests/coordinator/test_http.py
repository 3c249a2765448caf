"""Requests that mean harm: bounded in size and time, and none of them hurts another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport

from clustersh.blobs import BlobStore
from clustersh.coordinator.api import Api
from clustersh.coordinator.bodies import HIGH_WATER, BodyStream
from clustersh.coordinator.callers import Caller, Gate
from clustersh.coordinator.channel import KEPT_S, LINGER_S, REQUEST_S
from clustersh.coordinator.http import Request, Site
from clustersh.coordinator.refusals import Refusals
from clustersh.coordinator.rest_blobs import BlobCalls
from clustersh.coordinator.routes import CLIENTS, MAX_STRANGER_BODY, Pieces
from clustersh.trust.identity import Role
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import MAX_BODY, NameOf

from .conftest import Front, TrustedList

POST_OPEN = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def take(request: Request, body: NameOf) -> NameOf:
    return body


async def take_known(request: Request, caller: Caller, body: NameOf) -> NameOf:
    return body


@pytest.fixture
def calls(front: Front) -> Front:
    front.api.add_open("POST", "/open", take, NameOf)
    front.api.add_open("GET", "/open", lambda request: take(request, NameOf("hello")))
    front.api.add("POST", "/v1/known", take_known, CLIENTS, NameOf)
    return front


async def answer_to(front: Front, *parts: bytes, role: Role | None = None) -> bytes:
    wire = await front.raw(role)
    for part in parts:
        wire.send(part)
    await wire.until(b"}")
    wire.cut()
    await wire.closed
    return wire.received


@pytest_twisted.ensureDeferred
async def test_endless_headers_end_the_connection(calls: Front) -> None:
    for flood in (b"X-A: " + b"a" * 20_000, b"X-A: b\r\n" * 200, b"GET /" + b"a" * 40_000):
        wire = await calls.raw()
        wire.send((b"" if flood.startswith(b"GET") else b"GET /open HTTP/1.1\r\n") + flood + b"\r\n")
        await wire.closed
        assert b" 200 " not in wire.received


@pytest_twisted.ensureDeferred
async def test_a_stranger_s_large_body_is_refused_before_it_comes(calls: Front) -> None:
    head = POST_OPEN + b"Content-Length: %d\r\n\r\n" % (MAX_STRANGER_BODY + 1)
    assert b" 413 " in await answer_to(calls, head)


@pytest_twisted.ensureDeferred
async def test_a_body_without_a_length_ends_at_the_limit(calls: Front) -> None:
    chunk = b"8000\r\n" + b"a" * 0x8000 + b"\r\n"
    received = await answer_to(calls, POST_OPEN + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 3)
    assert received.count(b"HTTP/1.1") == 1
    assert b" 413 " in received


@pytest_twisted.ensureDeferred
async def test_nobody_without_a_certificate_gets_to_send_a_body(calls: Front) -> None:
    head = b"POST /v1/known HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    received = await answer_to(calls, head)
    assert b" 403 " in received
    assert b"plain-http" in received


@pytest_twisted.ensureDeferred
async def test_a_client_s_body_has_a_limit_too(calls: Front) -> None:
    head = b"POST /v1/known HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    assert b" 413 " in await answer_to(calls, head % (MAX_BODY + 1), role=Role.FRONTEND)


@pytest_twisted.ensureDeferred
async def test_a_length_that_lies(calls: Front) -> None:
    short = await answer_to(calls, POST_OPEN + b'Content-Length: 3\r\n\r\n{"name": "x"}')
    assert b" 400 " in short
    for twisted_length in (b"-1", b"1_0", b"9" * 400, b"3\r\nContent-Length: 4", b"3\r\nTransfer-Encoding: chunked"):
        wire = await calls.raw()
        wire.send(POST_OPEN + b"Content-Length: " + twisted_length + b'\r\n\r\n{"name": "x"}')
        if twisted_length == b"9" * 400:
            await wire.until(b"}")
            wire.cut()
        await wire.closed
        assert b" 200 " not in wire.received


@pytest_twisted.ensureDeferred
async def test_a_refused_sender_reads_the_answer_although_it_goes_on_sending(calls: Front) -> None:
    wire = await calls.raw()
    wire.send(POST_OPEN + b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
    for _ in range(20):
        wire.send(b"a" * 100_000)
        await deferLater(reactor, 0, lambda: None)
    received = await wire.until(b"}")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in received
    assert b"100 Continue" not in received
    wire.cut()
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_pipelined_requests_are_answered_in_turn(calls: Front) -> None:
    wire = await calls.raw()
    wire.send(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET /open HTTP/1.1\r\nConnection: close\r\n\r\n")
    await wire.closed
    assert wire.received.count(b" 200 OK") == 4


@pytest_twisted.ensureDeferred
async def test_a_hostile_host_header_changes_nothing(calls: Front) -> None:
    for host in (b"\xff\xfe", b"a" * 300, b"x/../y", b"[::", b"evil.example"):
        received = await answer_to(calls, b"GET /open HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert b" 200 " in received, host
        assert b"evil" not in received


# -- time, on a Clock


class Timed:
    """A plain connection whose time a Clock keeps."""

    def __init__(self) -> None:
        self.clock = Clock()
        api = Api(Gate(TrustedList(), Refusals(self.clock, lambda refusal: None)))
        api.add_open("POST", "/open", take, NameOf)
        self.transport = StringTransport()
        self.channel = Site(self.clock, api).buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    @property
    def closed(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)


def test_a_request_that_trickles_in_is_cut_in_time() -> None:
    timed = Timed()
    for byte in POST_OPEN[:59]:
        timed.receive(bytes([byte]))
        assert not timed.closed
        timed.clock.advance(1)
    timed.clock.advance(REQUEST_S - 58)
    assert timed.closed


def test_a_body_that_trickles_in_is_cut_in_time() -> None:
    timed = Timed()
    timed.receive(POST_OPEN + b"Content-Length: 1000\r\n\r\n")
    for _ in range(REQUEST_S):
        timed.receive(b"a")
        timed.clock.advance(1)
    assert timed.closed


def test_a_kept_connection_waits_longer_for_its_next_request_but_not_for_ever() -> None:
    timed = Timed()
    timed.receive(POST_OPEN + b'Content-Length: 13\r\n\r\n{"name": "x"}')
    assert b" 200 " in timed.transport.value()
    timed.clock.advance(KEPT_S - 1)
    assert not timed.closed
    timed.receive(b"P")
    timed.clock.advance(REQUEST_S - 1)
    assert not timed.closed
    timed.clock.advance(1)
    assert timed.closed


def test_a_refused_sender_is_cut_soon() -> None:
    timed = Timed()
    timed.receive(POST_OPEN + b"Content-Length: 100000000\r\n\r\n")
    assert b" 413 " in timed.transport.value()
    timed.receive(b"a" * 100_000)
    assert not timed.closed
    timed.clock.advance(LINGER_S)
    assert timed.closed


# -- uploads


class Slow:
    """An upload's reader that takes one piece, then waits."""

    def __init__(self) -> None:
        self.stream: BodyStream | None = None
        self.most = 0

    async def take(self, request: Request, caller: Caller, body: BodyStream) -> NameOf:
        self.stream, total = body, 0
        async for piece in body:
            self.most = max(self.most, body.queued)
            total += len(piece)
            await deferLater(reactor, 0.001, lambda: None)
        return NameOf(str(total))


@pytest_twisted.ensureDeferred
async def test_a_large_upload_is_taken_in_bounded_memory(front: Front) -> None:
    slow, size = Slow(), 24 << 20
    front.api.add("PUT", "/v1/upload", slow.take, CLIENTS, Pieces())
    reply = await front.call("PUT", "/v1/upload", Role.FRONTEND, data=b"a" * size)
    assert reply.json == {"name": str(size)}
    assert HIGH_WATER / 2 < slow.most < HIGH_WATER + (1 << 20)


@pytest_twisted.ensureDeferred
async def test_an_upload_that_fails_is_answered_before_its_end(front: Front) -> None:
    async def full(request: Request, caller: Caller, body: BodyStream) -> None:
        async for _ in body:
            raise ProblemError(Kind.STORAGE, "the disk is full")

    front.api.add("PUT", "/v1/upload", full, CLIENTS, Pieces())
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"PUT /v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"a" * 1_000_000)
    assert b" 507 " in await wire.until(b"}")
    wire.cut()
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_an_upload_that_nobody_reads_comes_to_its_end(front: Front) -> None:
    async def ignore(request: Request, caller: Caller, body: BodyStream) -> None:
        return None

    front.api.add("PUT", "/v1/upload", ignore, CLIENTS, Pieces())
    assert (await front.call("PUT", "/v1/upload", Role.FRONTEND, data=b"a" * 3_000_000)).status == 204
    assert (await front.call("PUT", "/v1/upload", Role.FRONTEND)).status == 204


class Jobs:
    def __init__(self, *allowed: tuple[str, str, str]) -> None:
        self.allowed = allowed

    def may_read_blob(self, machine_id: str, uuid: str, sha256: str) -> bool:
        return (machine_id, uuid, sha256) in self.allowed


@pytest_twisted.ensureDeferred
async def test_blobs_in_and_out(front: Front, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8000
    name, other = hashlib.sha256(content).hexdigest(), "0" * 64
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    BlobCalls(store, Jobs(("id-agent", "u1", name), ("id-agent", "u1", other))).add_to(front.api)

    async def missing() -> list[str]:
        reply = await front.call("POST", "/v1/blobs/missing", Role.FRONTEND, json={"sha256": [name, other]})
        return list(reply.json["sha256"])

    assert await missing() == [name, other]
    assert (await front.call("PUT", f"/v1/blobs/{name}", Role.FRONTEND, data=content)).status == 204
    assert await missing() == [other]
    fetched = await front.call("GET", f"/v1/jobs/ws1/u1/blobs/{name}", Role.AGENT)
    assert fetched.content == content
    for path in (f"/v1/jobs/ws1/u2/blobs/{name}", f"/v1/jobs/ws1/u1/blobs/{other}"):
        assert (await front.call("GET", path, Role.AGENT)).problem == "unknown-blob"
    wrong = await front.call("PUT", f"/v1/blobs/{other}", Role.FRONTEND, data=content)
    assert (wrong.status, wrong.problem) == (400, "bad-request")
    assert (await front.call("PUT", "/v1/blobs/..%2Fx", Role.FRONTEND, data=content)).status in (400, 404)
    assert await missing() == [other]


@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_cut_off_leaves_nothing(front: Front, tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    BlobCalls(store, Jobs()).add_to(front.api)
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"PUT /v1/blobs/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" % (b"0" * 64))
    wire.send(b"a" * 2_000_000)
    incoming = tmp_path / "blobs" / "incoming"
    while not list(incoming.iterdir()):
        await deferLater(reactor, 0.01, lambda: None)
    wire.cut()
    await wire.closed
    while list(incoming.iterdir()):
        await deferLater(reactor, 0.01, lambda: None)
    assert store.used == 0
