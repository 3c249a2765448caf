"""One port for both protocols, and where it may be."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from clustersh.config import parse_listen
from clustersh.coordinator import door
from clustersh.coordinator.callers import Caller
from clustersh.coordinator.door import FIRST_BYTE_S, MAX_HELLO, DoorError, DoorFactory, PortTaken, listen
from clustersh.coordinator.http import Request
from clustersh.coordinator.routes import AGENTS
from clustersh.coordinator.turns import AT_ONCE
from clustersh.trust.identity import Role
from clustersh.wire.link import ALPN
from clustersh.wire.rest import Health

from .conftest import Front, Opener


async def health(request: Request) -> Health:
    return Health(f"{request.peer} {request.secure}", "1")


@pytest_twisted.ensureDeferred
async def test_both_protocols_on_one_port(front: Front) -> None:
    front.api.add_open("GET", "/health", health)
    assert (await front.call("GET", "/health", plain=True)).json["service"] == "127.0.0.1 False"
    assert (await front.call("GET", "/health")).json["service"] == "127.0.0.1 True"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_every_address_means_both_families(open_front: Opener, host: str) -> None:
    if not socket.has_dualstack_ipv6():
        host = "127.0.0.1"
    front = open_front("*:0")
    front.api.add_open("GET", "/health", health)
    wire = await front.raw(host=host)
    wire.send(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
    await wire.closed
    assert f'"{host} False"'.encode() in wire.received


@pytest_twisted.ensureDeferred
async def test_a_first_byte_may_come_alone(front: Front) -> None:
    front.api.add_open("GET", "/health", health)
    wire = await front.raw()
    wire.send(b"G")
    wire.send(b"ET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await wire.closed
    assert b" 200 " in wire.received


@pytest_twisted.ensureDeferred
async def test_a_websocket_takes_the_connection_over(front: Front) -> None:
    class Echo(WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload, isBinary)

    factory = WebSocketServerFactory()
    factory.protocol = Echo

    async def link(request: Request, caller: Caller) -> Any:
        return WebSocketResource(factory)

    front.api.add("GET", "/v1/link", link, AGENTS)
    wire = await front.raw(Role.AGENT)
    wire.send(
        b"GET /v1/link HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await wire.until(b"\r\n\r\n")
    assert wire.received.startswith(b"HTTP/1.1 101 ")
    wire.send(b"\x82\x82\0\0\0\0hi")
    await wire.until(b"\x82\x02hi")
    wire.cut()
    await wire.closed


class Silent:
    """A connection on a Clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.door: Any = DoorFactory(self.clock, Factory(), CertificateOptions())
        self.protocol = self.door.buildProtocol(None)
        self.protocol.makeConnection(self.transport)


def test_a_connection_that_sends_nothing_is_closed() -> None:
    silent = Silent()
    silent.clock.advance(FIRST_BYTE_S - 0.1)
    assert not silent.transport.disconnected
    silent.clock.advance(0.2)
    assert silent.transport.disconnected


def test_a_connection_that_is_lost_before_its_first_byte_leaves_no_timer() -> None:
    silent = Silent()
    silent.protocol.connectionLost()
    assert silent.clock.getDelayedCalls() == []


class Begun(Factory):
    """Notes whose connections were handed over, and with which bytes."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.received: list[bytes] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        self.hosts.append(addr.host)
        protocol = Protocol()
        protocol.dataReceived = self.received.append  # type: ignore[method-assign]
        return protocol


class Queue:
    """A door on a Clock, whose TLS handshakes are only counted."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.door: Any = DoorFactory(self.clock, Factory(), CertificateOptions())
        self.begun = Begun()
        self.door.chosen = lambda first: self.begun

    def come(self, host: str, hello: bytes) -> Any:
        transport = StringTransport(peerAddress=IPv4Address("TCP", host, 1))
        transport.protocol = protocol = self.door.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(hello)
        return transport


AGENTS_HELLO = b"\x16 ... " + bytes([len(ALPN[0])]) + ALPN[0]
OTHER_HELLO = b"\x16 ... "


def test_handshakes_begin_a_few_a_turn_and_a_client_waits_for_one_agent_only() -> None:
    queue = Queue()
    for number in range(1, 201):
        queue.come(f"192.0.2.{number}", AGENTS_HELLO)
    queue.come("198.51.100.1", OTHER_HELLO)
    assert len(queue.begun.hosts) == AT_ONCE, "the others wait"
    queue.clock.advance(0)
    assert queue.begun.hosts.index("198.51.100.1") <= AT_ONCE + 1, "200 agents are one source"
    assert sorted(queue.begun.hosts) == sorted([*(f"192.0.2.{number}" for number in range(1, 201)), "198.51.100.1"])


def test_what_a_connection_sends_while_it_waits_is_kept_up_to_a_bound() -> None:
    queue = Queue()
    for _ in range(AT_ONCE):
        queue.come("192.0.2.1", OTHER_HELLO)
    waiting = queue.come("192.0.2.2", OTHER_HELLO)
    waiting.protocol.dataReceived(b"more")
    greedy = queue.come("192.0.2.3", OTHER_HELLO)
    greedy.protocol.dataReceived(bytes(MAX_HELLO))
    assert greedy.disconnected and not waiting.disconnected
    greedy.protocol.connectionLost()
    queue.clock.advance(0)
    assert queue.begun.received[-1] == OTHER_HELLO + b"more"
    assert "192.0.2.3" not in queue.begun.hosts


def test_many_may_come_before_the_first_is_accepted() -> None:
    allowed = Path("/proc/sys/net/core/somaxconn")
    count = min(700, int(allowed.read_text()) if allowed.exists() else 100)
    (port,) = listen(reactor, parse_listen("127.0.0.1:0"), Factory())
    with contextlib.ExitStack() as connections:
        connections.callback(port.stopListening)
        for _ in range(count):
            # The reactor has no turn meanwhile: one that doesn't wait in the row tries again in vain, and times out.
            connection = socket.create_connection(("127.0.0.1", port.getHost().port), timeout=10)
            connections.enter_context(connection)
            assert connection.getpeername()[1] == port.getHost().port


def test_inner_factories_start_and_stop_with_the_door() -> None:
    class Counting(Factory):
        started = stopped = 0

        def startFactory(self) -> None:
            self.started += 1

        def stopFactory(self) -> None:
            self.stopped += 1

    inner = Counting()
    outer = DoorFactory(Clock(), inner, CertificateOptions())
    outer.doStart()
    outer.doStart()
    outer.doStop()
    assert (inner.started, inner.stopped) == (1, 0)
    outer.doStop()
    assert (inner.started, inner.stopped) == (1, 1)


def test_a_taken_port_names_its_holder_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        number = holder.getsockname()[1]
        with pytest.raises(PortTaken) as refused:
            listen(reactor, parse_listen(f"127.0.0.1:{number}"), Factory())
    for part in (f"port {number}", "process", "this one", "--port", "[coordinator] listen"):
        assert part in str(refused.value)


@pytest.mark.parametrize("where", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_an_address_that_is_not_this_host_s(where: str) -> None:
    with pytest.raises(DoorError, match="can't listen on"):
        listen(reactor, parse_listen(where), Factory())


@pytest.mark.parametrize(
    ("hosts", "warned"), [(["10.0.0.7", "fe80::1%eth0", "100.101.1.1"], False), (["10.0.0.7", "203.0.113.9"], True)]
)
def test_a_public_address_is_warned_of(monkeypatch: pytest.MonkeyPatch, hosts: list[str], warned: bool) -> None:
    monkeypatch.setattr(door, "_listened_hosts", lambda where: iter(hosts))
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        door._warn_if_public(parse_listen("*:5672"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["addresses"] for event in events] == (["203.0.113.9"] if warned else [])
