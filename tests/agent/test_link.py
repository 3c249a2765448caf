"""A whole agent and a tiny coordinator, over a real WebSocket and mutual TLS."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime

import pytest
import pytest_twisted
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.task import deferLater
from zope.interface import implementer

from clustersh.agent import link as link_module
from clustersh.agent import vitals as vitals_module
from clustersh.agent.link import Room
from clustersh.agent.service import Agent, AgentService
from clustersh.agent.state import IDENTITY_FILE, STATUS_FILE, AgentIdentity, AgentStatus
from clustersh.clocks import boot_clock
from clustersh.config import AgentConfig, Duration
from clustersh.home import read_json, read_running, write_json
from clustersh.trust import keys
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.credentials import Credentials
from clustersh.trust.identity import Identity, Role
from clustersh.trust.tls import server_context_factory
from clustersh.wire.link import (
    MAX_READS,
    SUBPROTOCOL,
    AskVitals,
    Cancel,
    Chunk,
    Ended,
    Failed,
    Hello,
    Pulse,
    Read,
    Started,
    Stdin,
    StopRead,
    VitalsReport,
    Welcome,
    decode_from_agent,
    encode,
)
from clustersh.wire.output import Stream

from .jobs_support import WITNESS, start

ensure = pytest_twisted.ensureDeferred


class ServerProtocol(WebSocketServerProtocol):
    def onConnect(self, request):
        if self.factory.deny:
            raise ConnectionDeny(*self.factory.deny)
        return SUBPROTOCOL

    def onOpen(self):
        self.factory.coordinator.opened(self)

    def onClose(self, wasClean, code, reason):
        self.factory.coordinator.closed(self)

    def onMessage(self, payload, isBinary):
        self.factory.coordinator.received(decode_from_agent(payload))


@implementer(IProtocolNegotiationFactory)
class ServerFactory(WebSocketServerFactory):
    """Takes what agents offer at the TLS handshake, as the real door does."""

    def acceptableProtocols(self):
        return [b"http/1.1"]


class TinyCoordinator:
    """Takes links, keeps what came, and says what the test wants."""

    def __init__(self, folder) -> None:
        self.authority = Authority.create(folder / "coordinator", datetime.now(UTC))
        self.credentials = server_credentials(folder / "coordinator", self.authority, datetime.now(UTC))
        self.factory = ServerFactory(protocols=[SUBPROTOCOL])
        self.factory.setProtocolOptions(requireMaskedClientFrames=False)
        self.factory.protocol = ServerProtocol
        self.factory.coordinator = self
        self.factory.deny = None
        self.messages: list = []
        self.link = None
        self.links = 0
        self._arrived: list[Deferred] = []
        self.port = None

    async def listen(self, number: int = 0, credentials=None) -> int:
        context = server_context_factory(credentials or self.credentials)
        endpoint = SSL4ServerEndpoint(reactor, number, context, interface="127.0.0.1")
        self.port = await endpoint.listen(self.factory)
        return self.port.getHost().port

    async def close(self) -> None:
        if self.port is not None:
            await self.port.stopListening()
        if self.link is not None:
            self.link.transport.abortConnection()

    def opened(self, link) -> None:
        self.link = link
        self.links += 1

    def closed(self, link) -> None:
        if self.link is link:
            self.link = None

    def received(self, message) -> None:
        self.messages.append(message)
        arrived, self._arrived = self._arrived, []
        for one in arrived:
            one.callback(None)

    def say(self, message) -> None:
        self.link.sendMessage(encode(message), isBinary=True)

    async def next(self, kind, **fields):
        """Wait for a message of *kind* with these fields; take it out."""
        while True:
            for message in self.messages:
                if isinstance(message, kind) and all(getattr(message, name) == fields[name] for name in fields):
                    self.messages.remove(message)
                    return message
            arrived: Deferred[None] = Deferred()
            self._arrived.append(arrived)
            await arrived

    async def welcome(self, epoch: int = 1, open_jobs=()) -> Hello:
        hello = await self.next(Hello)
        self.say(Welcome(epoch, "ws1", tuple(open_jobs), WITNESS))
        return hello


class World:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.coordinator = TinyCoordinator(folder)
        self.agent = None
        self.states: list[str] = []
        self._waiting: list[Deferred] = []

    def enroll(self, port: int, authority=None) -> None:
        authority = authority or self.coordinator.authority
        key = keys.generate()
        certificate = authority.issue(Identity(Role.AGENT, "ws1", "id-1"), key.public_key(), datetime.now(UTC))
        Credentials(key, certificate, self.coordinator.authority.certificate).save(self.folder / "agent")
        write_json(self.folder / "agent" / IDENTITY_FILE, AgentIdentity(f"127.0.0.1:{port}", "ws1", "id-1"))

    async def start_agent(self) -> None:
        config = AgentConfig(environment="service", grace=Duration(0.3), reconnect_max=Duration(1))
        self.agent = Agent(reactor, self.folder / "agent", config)
        said = self.agent._say

        def listen(problem):
            said(problem)
            self.states.append(problem)
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

        self.agent._say = listen
        await self.agent.start(dict(os.environ))

    async def state(self, part: str) -> str:
        """Wait for a state of the link that has *part* in it."""
        while not any(part in state for state in self.states):
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter
        return next(state for state in self.states if part in state)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world

    async def end() -> None:
        if world.agent is not None:
            await world.agent.stop()
        await world.coordinator.close()

    pytest_twisted.blockon(Deferred.fromCoroutine(end()))


async def connected(world, **more) -> Hello:
    world.enroll(await world.coordinator.listen())
    await world.start_agent()
    return await world.coordinator.welcome(**more)


@ensure
async def test_a_link_begins_with_who_the_agent_is(world):
    before = boot_clock()
    hello = await connected(world)
    assert hello.store and hello.instance
    assert before <= hello.clock <= boot_clock()
    assert hello.facts.platform.startswith("linux/")
    await world.state("")
    status = read_json(world.folder / "agent" / STATUS_FILE, AgentStatus)
    assert (status.pid, status.problem) == (os.getpid(), "")


@ensure
async def test_the_agent_tells_its_clock_again_and_again(world, monkeypatch):
    monkeypatch.setattr(link_module, "PULSE_S", 0.05)
    await connected(world)
    first, second = await world.coordinator.next(Pulse), await world.coordinator.next(Pulse)
    assert first.clock < second.clock


@ensure
async def test_the_agent_tells_how_its_machine_does_by_itself_and_when_asked(world, monkeypatch):
    monkeypatch.setattr(vitals_module, "FIRST_S", 0.05)
    monkeypatch.setattr(vitals_module, "VITALS_S", 0.05)
    await connected(world)
    coordinator = world.coordinator
    report = await coordinator.next(VitalsReport, request=0)
    assert report.vitals.disk_root > 0 and report.vitals.memory > 0 and report.vitals.jobs == 0
    await coordinator.next(VitalsReport, request=0)
    job = start("sleep 60", epoch=1, start_by=boot_clock() + 10)
    coordinator.say(job)
    await coordinator.next(Started, uuid=job.uuid)
    coordinator.say(AskVitals(7))
    assert (await coordinator.next(VitalsReport, request=7)).vitals.jobs == 1
    coordinator.say(Cancel(job.uuid))
    await coordinator.next(Ended, uuid=job.uuid)


@ensure
async def test_a_job_from_start_to_end(world):
    await connected(world, epoch=7)
    job = start("echo $CLUSTERSH_MACHINE; echo err >&2; exit 3", epoch=7, start_by=boot_clock() + 10)
    world.coordinator.say(job)
    await world.coordinator.next(Started, uuid=job.uuid)
    ended = await world.coordinator.next(Ended, uuid=job.uuid)
    assert ended.outcome.exit_code == 3
    assert sorted(ended.head.splitlines()) == [b"err", b"ws1"]
    assert (ended.output.stdout_bytes, ended.output.stderr_bytes) == (4, 4)


@ensure
async def test_a_live_job_is_read_waited_on_fed_and_cancelled(world):
    await connected(world)
    coordinator = world.coordinator
    job = start("cat; sleep 60", epoch=1, start_by=boot_clock() + 10, stdin=True)
    coordinator.say(job)
    await coordinator.next(Started, uuid=job.uuid)
    coordinator.say(Read(1, job.uuid, Stream.BOTH, 0, 100, wait_s=30))
    coordinator.say(Read(2, job.uuid, Stream.STDERR, 0, 100, wait_s=30))
    coordinator.say(Read(3, job.uuid, Stream.STDERR, 0, 100, wait_s=0.05))
    coordinator.say(StopRead(2))
    empty = await coordinator.next(Chunk, request=3)
    assert (empty.data, empty.size, empty.ended) == (b"", 0, False)
    coordinator.say(Stdin(4, job.uuid, 0, b"one\ntwo\n"))
    chunk = await coordinator.next(Chunk, request=1)
    assert (chunk.data, chunk.ended) == (b"one\ntwo\n", False)
    coordinator.say(Read(5, job.uuid, Stream.STDOUT, 0, 0, tail_lines=1))
    assert (await coordinator.next(Chunk, request=5)).offset == 4
    coordinator.say(Cancel(job.uuid))
    ended = await coordinator.next(Ended, uuid=job.uuid)
    assert ended.outcome.reason == "cancelled"
    coordinator.say(Read(6, job.uuid, Stream.STDOUT, 4, 100, wait_s=30))
    last = await coordinator.next(Chunk, request=6)
    assert (last.data, last.size, last.ended) == (b"two\n", 8, True)
    assert not any(isinstance(message, Chunk) and message.request == 2 for message in coordinator.messages)


@ensure
async def test_reads_that_can_not_be_answered(world):
    await connected(world)
    unknown = start("true").uuid
    world.coordinator.say(Read(1, unknown, Stream.BOTH, 0, 100))
    assert (await world.coordinator.next(Failed, request=1)).type == "unknown-run"


@ensure
async def test_readers_that_wait_at_once_are_bounded(world):
    await connected(world)
    job = start("sleep 60", epoch=1, start_by=boot_clock() + 10)
    world.coordinator.say(job)
    await world.coordinator.next(Started, uuid=job.uuid)
    for number in range(MAX_READS + 1):
        world.coordinator.say(Read(number, job.uuid, Stream.BOTH, 0, 100, wait_s=30))
    failed = await world.coordinator.next(Failed)
    assert (failed.request, failed.type) == (MAX_READS, "rate-limited")


@ensure
async def test_a_cut_link_comes_back_and_unacknowledged_outcomes_with_it(world):
    await connected(world)
    job = start("true", epoch=1, start_by=boot_clock() + 10)
    world.coordinator.say(job)
    first = await world.coordinator.next(Ended, uuid=job.uuid)
    world.coordinator.link.transport.abortConnection()
    await world.coordinator.welcome(epoch=2)
    assert await world.coordinator.next(Ended, uuid=job.uuid) == first
    assert world.coordinator.links == 2


@ensure
async def test_what_can_not_be_read_ends_the_link_and_not_the_agent(world):
    await connected(world)
    world.coordinator.link.sendMessage(b"\xc1", isBinary=True)
    await world.state("sent what can't be read")
    await world.coordinator.welcome(epoch=2)


@ensure
async def test_a_coordinator_that_is_not_there(world):
    port = await world.coordinator.listen()
    await world.coordinator.close()
    world.enroll(port)
    await world.start_agent()
    assert "connection refused" in await world.state("refused")
    await world.coordinator.listen(port)
    await world.coordinator.welcome()


@ensure
async def test_a_certificate_of_another_authority_says_enroll(world, tmp_path):
    other = Authority.create(tmp_path / "other", datetime.now(UTC))
    world.enroll(await world.coordinator.listen(), other)
    await world.start_agent()
    assert "does not accept" in await world.state("clusteragent enroll --again")


@ensure
async def test_an_impostor_is_not_told_anything(world, tmp_path):
    other = Authority.create(tmp_path / "other", datetime.now(UTC))
    theirs = server_credentials(tmp_path / "other", other, datetime.now(UTC))
    world.enroll(await world.coordinator.listen(credentials=theirs))
    await world.start_agent()
    assert "is not the coordinator" in await world.state("clusteragent enroll --again")
    assert world.coordinator.messages == []


@ensure
async def test_a_forgotten_machine_says_enroll(world):
    world.coordinator.factory.deny = (403, "the key of ws1 was forgotten")
    world.enroll(await world.coordinator.listen())
    await world.start_agent()
    assert "the key of ws1 was forgotten" in await world.state("clusteragent enroll --again")


@ensure
async def test_stopping_ends_jobs_and_tells_it(world):
    await connected(world)
    job = start("sleep 60", epoch=1, start_by=boot_clock() + 10)
    world.coordinator.say(job)
    await world.coordinator.next(Started, uuid=job.uuid)
    agent, world.agent = world.agent, None
    await agent.stop()
    ended = await world.coordinator.next(Ended, uuid=job.uuid)
    assert ended.outcome.reason == "the agent stopped"


@ensure
async def test_data_waits_for_room():
    room = Room()
    room.pauseProducing()
    waiting = Deferred.fromCoroutine(room.wait())
    assert not waiting.called
    room.resumeProducing()
    assert waiting.called


@ensure
async def test_an_agent_that_can_not_say_that_it_is_up_does_not_stay_up_unseen(world, monkeypatch):
    def full(lock, address, version):
        raise OSError(errno.ENOSPC, "No space left on device")

    world.enroll(await world.coordinator.listen())
    told: list = []
    monkeypatch.setattr("clustersh.home.ServiceLock.announce", full)
    monkeypatch.setattr("clustersh.agent.service.stop_because", lambda reactor, problem: told.append(str(problem)))
    monkeypatch.setattr("clustersh.agent.service.raise_open_files", lambda: None)
    folder = world.folder / "agent"
    service = AgentService(reactor, folder, AgentConfig(environment="service"), dict(os.environ))
    service.startService()
    while not told:
        await deferLater(reactor, 0.01)
    assert told == [f"can't use the folder {folder}: disk full on the machine"]
    await service.stopService()
    assert read_running(folder) is None
    assert not (folder / STATUS_FILE).exists()
    while world.coordinator.link is not None:
        await deferLater(reactor, 0.01)
