"""Calls over real TLS: who may make them, what they take, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.client import ResponseNeverReceived

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request, wait_seconds
from clustersh.coordinator.routes import ADMINS, AGENTS, CLIENTS, Answer, Bytes
from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.queries import StdinQuery
from clustersh.wire.rest import Health, NameOf, StdinProgress

from .conftest import Front, Wire, pieces_of

JSON = {"Content-Type": "application/json"}


async def who(request: Request, caller: Caller) -> NameOf:
    return NameOf(f"{caller.identity.role} {caller.identity.name} {caller.address} {len(caller.fingerprint)}")


async def echo(request: Request, caller: Caller, body: NameOf) -> NameOf:
    return body


async def health(request: Request) -> Health:
    return Health("clusterd", "1")


@pytest.fixture
def calls(front: Front) -> Front:
    front.api.add("GET", "/v1/who", who, CLIENTS)
    front.api.add("GET", "/v1/admin/who", who, ADMINS)
    front.api.add("GET", "/v1/agent/who", who, AGENTS)
    front.api.add("POST", "/v1/echo", echo, CLIENTS, NameOf)
    front.api.add_open("GET", "/health", health)
    return front


@pytest_twisted.ensureDeferred
async def test_a_caller_is_known_by_its_certificate(calls: Front) -> None:
    reply = await calls.call("GET", "/v1/who", Role.FRONTEND)
    assert (reply.status, reply.json) == (200, {"name": "frontend ann@box 127.0.0.1 64"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("role", "path", "status", "problem"),
    [
        (None, "/v1/who", 401, "no-certificate"),
        (Role.AGENT, "/v1/who", 403, "wrong-role"),
        (Role.FRONTEND, "/v1/agent/who", 403, "wrong-role"),
        (Role.FRONTEND, "/v1/admin/who", 403, "wrong-role"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_others_are_refused_and_noted(
    calls: Front, role: Role | None, path: str, status: int, problem: str
) -> None:
    reply = await calls.call("GET", path, role)
    assert (reply.status, reply.problem) == (status, problem)
    assert [(refusal.address, refusal.reason) for refusal in calls.refused] == [
        ("127.0.0.1", problem.replace("-", " "))
    ]


@pytest_twisted.ensureDeferred
async def test_revocation_holds_at_the_next_request_of_a_kept_connection(calls: Front) -> None:
    wire = await calls.raw(Role.FRONTEND)
    wire.send(b"GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in await wire.until(b"ann@box")
    calls.trusted.revoked.add("ann@box")
    wire.send(b"GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 403 " in await wire.until(b"untrusted")
    wire.cut()
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_authority_is_refused_at_the_handshake(calls: Front, tmp_path: Path) -> None:
    key = keys.generate()
    other = Authority.create(tmp_path / "other", datetime.now(UTC))
    forged = other.issue(Identity(Role.FRONTEND, "eve", "eve"), key.public_key(), datetime.now(UTC))
    calls.certificates[Role.FRONTEND, "eve"] = (key, forged)
    with pytest.raises(ResponseNeverReceived):
        await calls.call("GET", "/v1/who", Role.FRONTEND, name="eve")
    assert [refusal.reason for refusal in calls.refused] == ["TLS handshake: certificate verify failed"]


@pytest_twisted.ensureDeferred
async def test_v1_over_plain_http_is_refused_with_a_hint(calls: Front) -> None:
    for method, path in (("GET", "/v1/who"), ("POST", "/v1/echo"), ("GET", "/v1/nothing"), ("GET", "/")):
        reply = await calls.call(method, path, plain=True)
        assert (reply.status, reply.problem) == (403, "plain-http")
        assert "https" in reply.json["hint"]


@pytest_twisted.ensureDeferred
async def test_open_calls_need_no_certificate(calls: Front) -> None:
    for plain in (True, False):
        reply = await calls.call("GET", "/health", plain=plain)
        assert (reply.status, reply.json["service"]) == (200, "clusterd")


@pytest_twisted.ensureDeferred
async def test_unknown_paths_and_methods(calls: Front) -> None:
    assert (await calls.call("GET", "/v1/nothing", Role.FRONTEND)).problem == "not-found"
    assert (await calls.call("GET", "/v1//who", Role.FRONTEND)).problem == "not-found"
    assert (await calls.call("GET", "/v1/%ff", Role.FRONTEND)).problem == "bad-request"
    wrong = await calls.call("POST", "/v1/who", Role.FRONTEND)
    assert (wrong.status, wrong.problem, wrong.headers["allow"]) == (405, "method-not-allowed", "GET, HEAD")
    head = await calls.call("HEAD", "/v1/who", Role.FRONTEND)
    assert (head.status, head.content) == (200, b"")


@pytest_twisted.ensureDeferred
async def test_a_body_is_checked_json(calls: Front) -> None:
    good = await calls.call("POST", "/v1/echo", Role.FRONTEND, data=b'{"name": "x"}', headers=JSON)
    assert (good.status, good.json) == (200, {"name": "x"})
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert (await calls.call("POST", "/v1/echo", Role.FRONTEND, data=b'{"name": "x"}', headers=charset)).status == 200
    for data, headers in (
        (b'{"name": 1}', JSON),
        (b"{", JSON),
        (b"", JSON),
        (b'{"name": "x"}', {"Content-Type": "text/plain"}),
        (b'{"name": "x"}', {}),
    ):
        reply = await calls.call("POST", "/v1/echo", Role.FRONTEND, data=data, headers=headers)
        assert (reply.status, reply.problem) == (400, "bad-request"), data
    assert (await calls.call("GET", "/v1/who", Role.FRONTEND, data=b"x")).problem == "bad-request"


@pytest_twisted.ensureDeferred
async def test_problems_and_bugs_become_documents(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(request: Request, caller: Caller) -> None:
        raise ProblemError(Kind.NOT_RUNNING, "ws1 is offline", hint="wait", uuid="u", started=False)

    async def fail(request: Request, caller: Caller) -> None:
        raise RuntimeError("the secret detail")

    async def lone_surrogate(request: Request, caller: Caller) -> NameOf:
        return NameOf("\ud800")

    front.api.add("GET", "/v1/refuse", refuse, CLIENTS)
    front.api.add("POST", "/v1/fail", fail, CLIENTS)
    front.api.add("GET", "/v1/surrogate", lone_surrogate, CLIENTS)
    refused = await front.call("GET", "/v1/refuse", Role.FRONTEND)
    assert (refused.status, refused.problem) == (409, "not-running")
    assert (refused.json["detail"], refused.json["hint"], refused.json["uuid"]) == ("ws1 is offline", "wait", "u")
    failed = await front.call("POST", "/v1/fail", Role.FRONTEND)
    assert (failed.status, failed.problem, failed.json["started"]) == (500, "internal", None)
    assert b"secret" not in failed.content
    assert (await front.call("GET", "/v1/surrogate", Role.FRONTEND)).status == 400


@pytest_twisted.ensureDeferred
async def test_answers_of_every_kind(front: Front) -> None:
    async def nothing(request: Request, caller: Caller) -> None:
        return None

    async def later(request: Request, caller: Caller) -> Answer:
        return Answer(NameOf("x"), 202, headers={"Clustersh-Offset": "7"})

    async def stream(request: Request, caller: Caller) -> Answer:
        return Answer(pieces_of(b"a" * 100_000, b"b" * 100_000), content_type="application/octet-stream")

    async def piece(
        request: Request, caller: Caller, machine: str, id: str, body: bytes, query: StdinQuery
    ) -> StdinProgress:
        return StdinProgress(len(body) + query.offset, (machine, id) == ("ws1", "42"))

    front.api.add("POST", "/v1/nothing", nothing, CLIENTS)
    front.api.add("GET", "/v1/later", later, CLIENTS)
    front.api.add("GET", "/v1/stream", stream, CLIENTS)
    front.api.add("PUT", "/v1/jobs/<machine>/<id>/stdin", piece, CLIENTS, Bytes(10), query=StdinQuery)
    assert (await front.call("POST", "/v1/nothing", Role.FRONTEND)).status == 204
    answer = await front.call("GET", "/v1/later", Role.FRONTEND)
    assert (answer.status, answer.json, answer.headers["clustersh-offset"]) == (202, {"name": "x"}, "7")
    assert (await front.call("GET", "/v1/stream", Role.FRONTEND)).content == b"a" * 100_000 + b"b" * 100_000
    assert (await front.call("HEAD", "/v1/stream", Role.FRONTEND)).content == b""
    put = await front.call("PUT", "/v1/jobs/ws1/42/stdin?offset=5", Role.FRONTEND, data=b"0123456789")
    assert put.json == {"offset": 15, "closed": True}
    assert (await front.call("PUT", "/v1/jobs/a/b/stdin", Role.FRONTEND, data=b"0123456789x")).problem == "too-large"


@pytest_twisted.ensureDeferred
async def test_an_answer_whose_source_fails_is_cut_off(front: Front) -> None:
    async def broken(request: Request, caller: Caller) -> Answer:
        async def pieces():  # type: ignore[no-untyped-def]
            yield b"half"
            raise ProblemError(Kind.OUTPUT_UNAVAILABLE, "the agent went away")

        return Answer(pieces())

    front.api.add("GET", "/v1/broken", broken, CLIENTS)
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"GET /v1/broken HTTP/1.1\r\nHost: x\r\n\r\n")
    await wire.closed
    assert not wire.received.endswith(b"0\r\n\r\n")


class Slow:
    """A call that waits, and remembers what became of it."""

    def __init__(self) -> None:
        self.begun: Deferred[None] = Deferred()
        self.release: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()

    async def wait(self, request: Request, caller: Caller) -> None:
        self.begun.callback(None)
        try:
            await self.release
        except BaseException as error:
            self.ended.callback(type(error).__name__)
            raise
        self.ended.callback("done")

    async def wait_unless_gone(self, request: Request, caller: Caller) -> None:
        await request.unless_gone(self.wait(request, caller))


async def leave(front: Front, path: bytes, slow: Slow) -> Wire:
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    await slow.begun
    wire.cut()
    await wire.closed
    return wire


@pytest_twisted.ensureDeferred
async def test_work_goes_on_when_the_client_leaves(front: Front) -> None:
    slow = Slow()
    front.api.add("GET", "/v1/slow", slow.wait, CLIENTS)
    await leave(front, b"/v1/slow", slow)
    await deferLater(reactor, 0, lambda: None)
    slow.release.callback(None)
    assert await slow.ended == "done"


@pytest_twisted.ensureDeferred
async def test_waiting_ends_when_the_client_leaves(front: Front) -> None:
    slow = Slow()
    front.api.add("GET", "/v1/slow", slow.wait_unless_gone, CLIENTS)
    await leave(front, b"/v1/slow", slow)
    assert await slow.ended == "CancelledError"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5.0),
        ("respond-async, wait=7", 7.0),
        ('wait="3"', 3.0),
        ("wait=9000", 60.0),
        ("wait=-1", 0.0),
        ("", 0.0),
    ],
)
@pytest_twisted.ensureDeferred
async def test_prefer_wait(front: Front, header: str, seconds: float) -> None:
    async def waits(request: Request, caller: Caller) -> NameOf:
        return NameOf(str(wait_seconds(request)))

    front.api.add("GET", "/v1/waits", waits, CLIENTS)
    reply = await front.call("GET", "/v1/waits", Role.FRONTEND, headers={"Prefer": header})
    assert reply.json == {"name": str(seconds)}


@pytest_twisted.ensureDeferred
async def test_a_cut_key_loses_its_connections(calls: Front) -> None:
    wire, other = await calls.raw(Role.FRONTEND), await calls.raw(Role.ADMIN)
    for each in (wire, other):
        each.send(b"GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n")
        await each.until(b"127.0.0.1")
    calls.site.cut(fingerprint(calls.credentials(Role.FRONTEND, "ann@box")[1]))
    await wire.closed
    assert not other.closed.called
    other.cut()
    await other.closed


@pytest_twisted.ensureDeferred
async def test_calls_without_a_body_may_be_sent_an_empty_object(front: Front) -> None:
    async def nothing(request: Request, caller: Caller) -> None:
        return None

    front.api.add("POST", "/v1/cancel", nothing, CLIENTS)
    for data, status in ((b"", 204), (b"{}", 204), (b"[]", 400), (b"{" + b" " * 20 + b"}", 413)):
        assert (await front.call("POST", "/v1/cancel", Role.FRONTEND, data=data)).status == status, data
