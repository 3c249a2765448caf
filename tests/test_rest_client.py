"""The REST client against real loopback servers: plain, TLS, slow, rude, gone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from OpenSSL.crypto import X509, PKey
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.web.server import NOT_DONE_YET

from clustersh.address import Address
from clustersh.rest_client import Cause, RestClient, Unreachable
from clustersh.trust.credentials import Credentials
from clustersh.trust.tls import ClientPolicy, client_connection_creator
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Cancelled, Health

from .fake_coordinator import Answer, Asked, FakeCoordinator, later, reactor

HEALTH = Health("clusterd", "0.1.0")


class Site:
    """Servers and clients of one test, stopped at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coordinators: list[FakeCoordinator] = []
        self._clients: list[RestClient] = []
        self._ports: list[Any] = []

    def coordinator(self, handler: Callable[[Asked], object], name: str = "ca", **options: Any) -> FakeCoordinator:
        self._coordinators.append(FakeCoordinator(self._folder / name, handler, **options))
        return self._coordinators[-1]

    def client(self, address: Address, policy: ClientPolicy | None = None, **options: Any) -> RestClient:
        self._clients.append(RestClient(reactor, address, policy, **options))
        return self._clients[-1]

    def tls_client(self, coordinator: FakeCoordinator, credentials: Credentials | None = None) -> RestClient:
        own = credentials or coordinator.credentials()
        return self.client(coordinator.address, policy_of(own))

    def listen(self, protocol: Callable[[], Protocol]) -> Address:
        port = reactor.listenTCP(0, Factory.forProtocol(protocol), interface="127.0.0.1")
        self._ports.append(port)
        return Address("127.0.0.1", port.getHost().port)

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        for coordinator in self._coordinators:
            await coordinator.stop()
        for port in self._ports:
            await port.stopListening()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


def policy_of(credentials: Credentials) -> ClientPolicy:
    return ClientPolicy(client_connection_creator(credentials.ca, credentials.key, credentials.certificate))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_twisted.ensureDeferred
async def test_a_call_sends_json_and_returns_the_typed_answer(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: Cancelled("u", ("ws1",)))
    client = site.client(coordinator.address)
    answer = await client.call(
        "POST",
        "/v1/runs/a%2Fb/cancel",
        {"name": "ü"},
        answer=Cancelled,
        query=[("since", "2026-11-20T10:31:07+01:00"), ("status", "a&b")],
        headers={"Idempotency-Key": "k-1"},
        wait_s=12.5,
    )
    assert answer == Cancelled("u", ("ws1",))
    (asked,) = coordinator.asked
    assert asked.path == "/v1/runs/a%2Fb/cancel?since=2026-11-20T10%3A31%3A07%2B01%3A00&status=a%26b"
    assert msgspec.json.decode(asked.body) == {"name": "ü"}
    header = asked.request.requestHeaders.getRawHeaders
    assert (header("content-type"), header("idempotency-key"), header("prefer")) == (
        ["application/json"],
        ["k-1"],
        ["wait=12.5"],
    )


@pytest_twisted.ensureDeferred
async def test_bytes_are_sent_as_they_are_and_an_empty_answer_is_none(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: Answer(status=204))
    client = site.client(coordinator.address)
    sent = b"\0\xff" * 1000
    await client.call("PUT", "/v1/jobs/ws1/u/stdin", sent)
    assert coordinator.asked[0].body == sent


@pytest_twisted.ensureDeferred
async def test_calls_share_one_connection(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: HEALTH)
    client = site.tls_client(coordinator)
    for _ in range(3):
        await client.call("GET", "/health", answer=Health)
    assert len({asked.peer_port for asked in coordinator.asked}) == 1


@pytest_twisted.ensureDeferred
async def test_a_problem_document_is_raised(site: Site) -> None:
    def refuse(asked: Asked) -> object:
        raise ProblemError(Kind.NOT_RUNNING, "ws1 is offline", hint="later", uuid="u", started=None)

    client = site.client(site.coordinator(refuse).address)
    with pytest.raises(ProblemError) as caught:
        await client.call("GET", "/v1/machines", answer=Health)
    problem = caught.value.problem
    assert (problem.kind, problem.detail, problem.hint, problem.uuid, problem.started) == (
        Kind.NOT_RUNNING,
        "ws1 is offline",
        "later",
        "u",
        None,
    )


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (Answer(b"<html>not found</html>", 404, "text/html"), "HTTP 404"),
        (Answer(b"{nonsense", 500, "application/problem+json"), "HTTP 500"),
        (Answer(b"<html>welcome</html>", 200, "text/html"), "JSON"),
        (Answer(b"", 302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_no_coordinator_answers_is_named(site: Site, answer: Answer, what: str) -> None:
    client = site.client(site.coordinator(lambda asked: answer).address)
    with pytest.raises(Unreachable, match=what) as caught:
        await client.call("GET", "/health", answer=Health)
    assert caught.value.cause is Cause.NO_COORDINATOR
    assert caught.value.sent


@pytest_twisted.ensureDeferred
async def test_a_huge_answer_is_refused(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: Answer(b" " * 5000 + msgspec.json.encode(HEALTH)))
    assert await site.client(coordinator.address).call("GET", "/health", answer=Health) == HEALTH
    with pytest.raises(Unreachable, match="more than 4096 bytes"):
        await site.client(coordinator.address, answer_limit=4096).call("GET", "/health", answer=Health)


@pytest_twisted.ensureDeferred
async def test_refused_connections_and_unknown_hosts_were_never_sent(site: Site) -> None:
    port = free_port()
    with pytest.raises(Unreachable, match="connection refused") as refused:
        await site.client(Address("127.0.0.1", port)).call("GET", "/health")
    assert (refused.value.sent, refused.value.cause) == (False, Cause.REFUSED)
    assert "clusterd" in refused.value.hint
    with pytest.raises(Unreachable, match="no host called") as unknown:
        await site.client(Address("no-such-host.invalid", port)).call("GET", "/health")
    assert (unknown.value.sent, unknown.value.cause) == (False, Cause.NO_SUCH_HOST)


@pytest_twisted.ensureDeferred
async def test_a_late_answer_may_have_been_sent(site: Site) -> None:
    client = site.client(site.coordinator(lambda asked: Deferred()).address)
    with pytest.raises(Unreachable, match=r"did not answer within 0\.2s") as caught:
        await client.call("POST", "/v1/runs", {}, timeout_s=0.2)
    assert (caught.value.sent, caught.value.cause) == (True, Cause.TIMED_OUT)


@pytest_twisted.ensureDeferred
async def test_the_wait_is_not_part_of_the_time_out(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: later(0.3).addCallback(lambda _: HEALTH))
    client = site.client(coordinator.address)
    assert await client.call("GET", "/health", answer=Health, wait_s=5, timeout_s=0.1) == HEALTH


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_never_made_was_never_sent(site: Site) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fill = []
        for _ in range(4):  # a full backlog: further connections hang
            extra = socket.socket()
            extra.setblocking(False)
            extra.connect_ex(full.getsockname())
            fill.append(extra)
        client = site.client(Address("127.0.0.1", full.getsockname()[1]))
        with pytest.raises(Unreachable, match="no connection to") as caught:
            await client.call("POST", "/v1/runs", {}, timeout_s=0.3)
        for extra in fill:
            extra.close()
    assert (caught.value.sent, caught.value.cause) == (False, Cause.TIMED_OUT)


@pytest_twisted.ensureDeferred
async def test_a_connection_lost_before_the_answer_may_have_been_sent(site: Site) -> None:
    class HangUp(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.abortConnection()  # type: ignore[union-attr]

    with pytest.raises(Unreachable, match="lost before its answer") as caught:
        await site.client(site.listen(HangUp)).call("POST", "/v1/runs", {})
    assert caught.value.sent


@pytest_twisted.ensureDeferred
async def test_a_body_travels_with_its_headers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece of TLS, so that the coordinator wakes up once: every run has one."""
    coordinator = site.coordinator(lambda asked: HEALTH)
    pieces: list[bytes] = []
    build = coordinator.site.buildProtocol

    def noting(address: Any) -> Any:
        protocol: Any = build(address)
        take = protocol.dataReceived
        protocol.dataReceived = lambda data: (pieces.append(data), take(data))
        return protocol

    monkeypatch.setattr(coordinator.site, "buildProtocol", noting)
    assert await site.tls_client(coordinator).call("POST", "/v1/runs", {"target": "ws1"}, answer=Health) == HEALTH
    assert len(pieces) == 1
    assert pieces[0].endswith(b'\r\n\r\n{"target":"ws1"}')


@pytest_twisted.ensureDeferred
async def test_cancelling_a_call_cancels_it(site: Site) -> None:
    arrived: Deferred[None] = Deferred()

    def handle(asked: Asked) -> object:
        arrived.callback(None)
        return Deferred()

    call = Deferred.fromCoroutine(site.client(site.coordinator(handle).address).call("GET", "/health"))
    await arrived
    call.cancel()
    with pytest.raises(CancelledError):
        await call


@pytest_twisted.ensureDeferred
async def test_mutual_tls_shows_the_certificate(site: Site) -> None:
    seen = []

    def handle(asked: Asked) -> object:
        seen.append(asked.request.transport.getPeerCertificate().to_cryptography())
        return HEALTH

    coordinator = site.coordinator(handle)
    own = coordinator.credentials()
    assert await site.tls_client(coordinator, own).call("GET", "/health", answer=Health) == HEALTH
    assert seen == [own.certificate]


@pytest_twisted.ensureDeferred
async def test_another_coordinator_is_noticed_before_anything_is_sent(site: Site) -> None:
    paired, other = site.coordinator(lambda asked: HEALTH), site.coordinator(lambda asked: HEALTH, "other")
    client = site.client(other.address, policy_of(paired.credentials()))
    with pytest.raises(Unreachable, match="not the coordinator that this program was paired with") as caught:
        await client.call("POST", "/v1/runs", {})
    assert (caught.value.sent, caught.value.cause, other.asked) == (False, Cause.IMPOSTOR, [])


@pytest_twisted.ensureDeferred
async def test_a_client_certificate_does_not_make_a_coordinator(site: Site) -> None:
    paired = site.coordinator(lambda asked: HEALTH)
    stolen = paired.credentials()
    context = CertificateOptions(
        privateKey=PKey.from_cryptography_key(stolen.key), certificate=X509.from_cryptography(stolen.certificate)
    )
    impostor = site.coordinator(lambda asked: HEALTH, "impostor", context=context)
    with pytest.raises(Unreachable) as caught:
        await site.client(impostor.address, policy_of(paired.credentials())).call("POST", "/v1/runs", {})
    assert (caught.value.sent, caught.value.cause, impostor.asked) == (False, Cause.IMPOSTOR, [])


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_accepted_is_named(site: Site) -> None:
    paired, other = site.coordinator(lambda asked: HEALTH), site.coordinator(lambda asked: HEALTH, "other")
    strange = other.credentials()._replace(ca=paired.authority.certificate)
    with pytest.raises(Unreachable, match="does not accept") as caught:
        await site.tls_client(paired, strange).call("POST", "/v1/runs", {})
    assert (caught.value.sent, caught.value.cause, paired.asked) == (False, Cause.NOT_ACCEPTED, [])


@pytest_twisted.ensureDeferred
async def test_a_port_without_tls_is_named(site: Site) -> None:
    class Greeting(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    paired = site.coordinator(lambda asked: HEALTH)
    with pytest.raises(Unreachable, match="not as a coordinator does") as caught:
        await site.client(site.listen(Greeting), policy_of(paired.credentials())).call("GET", "/health")
    assert (caught.value.sent, caught.value.cause) == (False, Cause.NO_COORDINATOR)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_stream_waits_for_its_collector(site: Site, secure: bool) -> None:
    whole = bytes(range(256)) * (1 << 14)  # 4 MiB

    coordinator = site.coordinator(lambda asked: Answer(whole, kind="x/y", headers={"Clustersh-Size": str(len(whole))}))
    client = site.tls_client(coordinator) if secure else site.client(coordinator.address)
    received, begun, most = bytearray(), [], 0
    blocked: Deferred[None] = Deferred()

    async def collect(piece: bytes) -> None:
        nonlocal most
        received.extend(piece)
        if len(received) == len(piece):
            await blocked

    done = Deferred.fromCoroutine(client.stream("GET", "/o", collect, begin=begun.append, idle_s=0.2))
    await later(0.5)
    held = len(received)
    assert held < 1 << 17  # the rest waits in the network, longer than the idle time
    assert not done.called
    blocked.callback(None)
    headers = await done
    assert bytes(received) == whole
    assert headers["clustersh-size"] == str(len(whole))
    assert begun == [headers]


@pytest_twisted.ensureDeferred
async def test_a_stream_that_stalls_or_is_cut_off_is_unreachable(site: Site) -> None:
    def stall(asked: Asked) -> object:
        asked.request.write(b"first")
        if asked.path == "/cut":
            asked.request.transport.loseConnection()
        return NOT_DONE_YET

    client = site.client(site.coordinator(stall).address)
    received: list[bytes] = []
    with pytest.raises(Unreachable, match=r"within 0\.2s"):
        await client.stream("GET", "/stall", received.append, idle_s=0.2)
    with pytest.raises(Unreachable, match="lost"):
        await client.stream("GET", "/cut", received.append)
    assert received == [b"first", b"first"]


@pytest_twisted.ensureDeferred
async def test_a_stream_can_be_refused_and_its_collector_can_fail(site: Site) -> None:
    def handle(asked: Asked) -> object:
        if asked.path == "/no":
            raise ProblemError(Kind.UNKNOWN_RUN, "no such run")
        return Answer(b"x" * 100_000)

    client = site.client(site.coordinator(handle).address)
    received: list[bytes] = []
    with pytest.raises(ProblemError, match="no such run"):
        await client.stream("GET", "/no", received.append)
    assert received == []

    def fail(piece: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await client.stream("GET", "/yes", fail)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        await succeed(None)
        yield piece


@pytest_twisted.ensureDeferred
async def test_an_upload_sends_its_pieces(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: Answer(status=204))
    client = site.tls_client(coordinator)
    block = bytes(range(256)) * 1024
    await client.upload("/v1/blobs/00", 20 * len(block), pieces(*[block] * 20))
    assert coordinator.asked[0].body == block * 20
    await client.upload("/v1/blobs/01", 0, pieces())
    assert coordinator.asked[1].body == b""


@pytest_twisted.ensureDeferred
async def test_an_upload_waits_for_the_connection(site: Site) -> None:
    kept: list[Protocol] = []

    class Deaf(Protocol):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()  # type: ignore[union-attr]
            kept.append(self)  # which the reactor does not, as it waits for nothing of it

    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 65536

    with pytest.raises(Unreachable, match=r"within 0\.3s") as caught:
        await site.client(site.listen(Deaf)).upload("/v1/blobs/00", 1 << 40, endless(), idle_s=0.3)
    assert caught.value.sent
    assert taken < 400  # what the kernel's buffers hold


@pytest_twisted.ensureDeferred
async def test_an_upload_whose_connection_is_lost_says_so(site: Site) -> None:
    class Leaving(Protocol):
        transport: ITCPTransport

        def dataReceived(self, data: bytes) -> None:
            self.transport.abortConnection()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    with pytest.raises(Unreachable, match="was lost") as caught:
        await site.client(site.listen(Leaving)).upload("/v1/blobs/00", 1 << 40, endless(), idle_s=30)
    assert caught.value.sent


@pytest_twisted.ensureDeferred
async def test_an_upload_tells_what_is_wrong_with_its_pieces(site: Site) -> None:
    client = site.client(site.coordinator(lambda asked: Answer(status=204)).address)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("read error")

    with pytest.raises(OSError, match="read error"):
        await client.upload("/v1/blobs/00", 10, broken())
    with pytest.raises(ValueError, match="bytes"):
        await client.upload("/v1/blobs/00", 10, pieces(b"short"))
    with pytest.raises(ValueError, match="bytes"):
        await client.upload("/v1/blobs/00", 3, pieces(b"too long"))


@pytest_twisted.ensureDeferred
async def test_ipv6_addresses_are_dialled(site: Site) -> None:
    coordinator = site.coordinator(lambda asked: HEALTH)
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    port = reactor.listenTCP(0, coordinator.site, interface="::1")
    try:
        client = site.client(Address("::1", port.getHost().port))
        assert await client.call("GET", "/health", answer=Health) == HEALTH
    finally:
        await port.stopListening()
