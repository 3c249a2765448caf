"""The WebSocket side of a link, over a real door: what agents may not send, and how links are cut."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.channel import Channel
from clustersh.coordinator.fleet import Fleet
from clustersh.coordinator.http import Request
from clustersh.coordinator.link_server import MAX_UNDER_WAY, PING_BYTES, PING_S, SMOOTHING, LinkFactory
from clustersh.coordinator.registry import Key
from clustersh.coordinator.routes import AGENTS
from clustersh.trust.identity import Role
from clustersh.wire.jobs import Outcome
from clustersh.wire.link import MAX_MESSAGE, Acknowledge, Ended, Hello, Pulse, Welcome, Witness, encode

from .conftest import Front, Wire

KEY = Key("mark", Role.AGENT, "ws1", "id-agent", "192.0.2.1", "")
WITNESS = Witness(0, "")


class Events:
    """Takes every machine in; reports are dealt with when the test says so."""

    def __init__(self) -> None:
        self.reports: list[Deferred[None]] = []

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> Welcome:
        return Welcome(epoch, machine.name, (), WITNESS)

    def started(self, machine_id: str, message: object) -> None:
        pass

    def ended(self, machine_id: str, message: Ended) -> Deferred[None]:
        self.reports.append(Deferred())
        return self.reports[-1]


class Links:
    """A fleet behind a real door."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.events = Events()
        self.fleet = Fleet(reactor, lambda: 1.0, lambda: 1.8e9)  # type: ignore[arg-type]
        self.fleet.events = self.events  # type: ignore[assignment]
        self.complaints: list[tuple[str, str]] = []
        self.factory = LinkFactory(reactor, self.fleet, lambda *words: self.complaints.append(words))

        async def link(request: Request, caller: Caller) -> Any:
            return self.factory.taking(KEY)

        front.api.add("GET", "/v1/link", link, AGENTS)

    async def connect(self) -> Wire:
        wire = await self.front.raw(Role.AGENT)
        wire.send(
            b"GET /v1/link HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: clustersh.1\r\n\r\n"
        )
        assert b" 101 " in await wire.until(b"\r\n\r\n")
        return wire


def frame(payload: bytes) -> bytes:
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack(">BH", 0xFE, len(payload))
    return b"\x82" + length + bytes(4) + payload


def hello() -> bytes:
    return frame(encode(Hello(version="1", instance="i", store="s", clock=1.0)))


@pytest.fixture
def links(front: Front) -> Links:
    return Links(front)


@pytest.fixture
def problems() -> Iterator[list[Any]]:
    events: list[Any] = []

    def observe(event: Any) -> None:
        # Another test's coordinator may still be asking Tailscale.
        if event["log_level"].name in ("error", "critical", "warn") and "tailnet" not in event["log_namespace"]:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_an_agent_that_sends_nonsense_is_told_and_named_once(links: Links, problems: list[Any]) -> None:
    wire = await links.connect()
    wire.send(hello())
    await wire.until(b"welcome")
    wire.send(frame(b"nonsense") * 50)
    await wire.until(b"that message can't be")
    wire.cut()
    await wire.closed
    assert links.complaints == [("ws1", "sends a message that can't be")]
    assert problems == []


@pytest_twisted.ensureDeferred
async def test_a_machine_that_has_not_said_hello_yet_is_cut_too(links: Links) -> None:
    wire = await links.connect()
    links.factory.cut("another")
    wire.send(hello())
    await wire.until(b"welcome")
    silent = await links.connect()
    links.factory.cut(KEY.id)
    await silent.closed
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_what_is_sent_to_a_closing_link_is_as_if_it_never_arrived(links: Links, problems: list[Any]) -> None:
    wire = await links.connect()
    wire.send(hello())
    await wire.until(b"welcome")
    [link] = links.factory.links
    link.sendClose(1000, "over")
    assert links.fleet.send(KEY.id, Acknowledge("uuid", WITNESS))
    wire.cut()
    await wire.closed
    assert problems == []


@pytest_twisted.ensureDeferred
async def test_a_flood_of_reports_waits_in_the_network_not_in_memory(links: Links) -> None:
    wire = await links.connect()
    wire.send(hello())
    await wire.until(b"welcome")
    [link] = links.factory.links
    paused: list[str] = []
    socket = link.transport
    real_pause, real_resume = socket.pauseProducing, socket.resumeProducing
    socket.pauseProducing = lambda: (paused.append("paused"), real_pause())
    socket.resumeProducing = lambda: (paused.append("resumed"), real_resume())
    report = frame(encode(Ended("uuid", Outcome.exited(0))))
    for _ in range(MAX_UNDER_WAY):
        link.onMessage(encode(Ended("uuid", Outcome.exited(0))), True)
    assert paused == ["paused"]
    links.events.reports[0].callback(None)
    assert paused == ["paused", "resumed"]
    wire.send(report + frame(encode(Pulse(2.0))))
    wire.cut()
    await wire.closed


def pong(payload: bytes) -> bytes:
    return b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload


async def ping_of(wire: Wire) -> bytes:
    """Return what the link's first ping holds; what came before it is dropped."""
    head = b"\x89" + bytes([PING_BYTES])
    received = await wire.until(head)
    while len(received) < received.index(head) + 2 + PING_BYTES:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        received = wire.received
    begin = received.index(head) + 2
    wire.received = received[begin + PING_BYTES :]
    return received[begin : begin + PING_BYTES]


class Timer:
    """The reactor's time, moved on by the test; its clock is the real one."""

    def __init__(self) -> None:
        self.at = 100.0

    def seconds(self) -> float:
        return self.at

    def callLater(self, *words: Any) -> Any:
        return reactor.callLater(*words)  # type: ignore[attr-defined]


async def answered(links: Links, wire: Wire, payload: bytes) -> None:
    """Send a pong, and wait until the link has taken it in."""
    wire.send(pong(payload) + frame(encode(Ended("uuid", Outcome.exited(0)))))
    before = len(links.events.reports)
    while len(links.events.reports) == before:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_a_links_latency_is_what_its_pings_take_smoothed(links: Links) -> None:
    timer = links.factory.timer = Timer()
    wire = await links.connect()
    wire.send(hello())
    payload = await ping_of(wire)
    await wire.until(b"welcome")
    assert links.fleet.latency(KEY.id) is None
    timer.at += 0.5
    await answered(links, wire, bytes(PING_BYTES))
    assert links.fleet.latency(KEY.id) is None, "a pong to nothing that was asked"
    await answered(links, wire, payload)
    assert links.fleet.latency(KEY.id) == pytest.approx(0.5)
    timer.at += 0.1
    await answered(links, wire, payload)
    assert links.fleet.latency(KEY.id) == pytest.approx(0.5), "a ping is answered once"
    [link] = links.factory.links
    link._sendAutoPing()
    payload = await ping_of(wire)
    timer.at += 0.1
    await answered(links, wire, payload)
    assert links.fleet.latency(KEY.id) == pytest.approx(0.5 + SMOOTHING * (0.1 - 0.5))
    wire.cut()
    await wire.closed
    while links.fleet.epoch(KEY.id) is not None:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert links.fleet.latency(KEY.id) is None


def requests_and_channels() -> list[Request | Channel]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Request | Channel)]


@pytest_twisted.ensureDeferred
async def test_a_link_keeps_nothing_of_the_request_that_it_began_with(links: Links) -> None:
    before = requests_and_channels()  # what other tests have left
    wire = await links.connect()
    wire.send(hello())
    await wire.until(b"welcome")
    assert [each for each in requests_and_channels() if each not in before] == []
    assert len(links.factory.links) == 1


@pytest_twisted.ensureDeferred
async def test_a_link_has_no_copy_of_what_all_links_have_in_common(links: Links) -> None:
    await links.connect()
    (link,) = links.factory.links
    assert not {"autoPingInterval", "maxMessagePayloadSize"} & vars(link).keys()
    assert link.autoPingInterval == PING_S and link.maxMessagePayloadSize == MAX_MESSAGE
    assert link.transport_details.peer_cert is None, "nor the certificate in words"
