"""A run's life, in memory: a real ledger and index, a Clock, and agents that are plain objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from clustersh.coordinator.fleet import Fleet, Link
from clustersh.coordinator.index import Index
from clustersh.coordinator.ledger import Ledger
from clustersh.coordinator.open_runs import OpenJob, OpenRun
from clustersh.coordinator.records import CancelRequested, JobEnded, Orphan, Record, RunRequested
from clustersh.coordinator.registry import Registry
from clustersh.coordinator.runs import Runs
from clustersh.trust.identity import Identity, Role
from clustersh.trust.keys import generate
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command, Outcome, OutputSummary, State
from clustersh.wire.link import (
    Acknowledge,
    Cancel,
    Ended,
    FromCoordinator,
    Hello,
    Pulse,
    Start,
    Started,
    Welcome,
)
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import RunRequest

JOSHUA = Identity(Role.FRONTEND, "joshua@mba", "client-1")
ANN = Identity(Role.FRONTEND, "ann@desk", "client-2")
TRUE = RunRequest("ws1", Command(shell="true"))


class NoBlobs:
    async def hold(self, script: str, manifest: str) -> frozenset[str]:
        return frozenset(name for name in (script, manifest) if name)

    def let_go(self, blobs: frozenset[str]) -> None:
        pass


class Agent:
    """One link of a machine: what it was sent, and the words to answer with."""

    def __init__(self, world: World, name: str, store: str = "store-1") -> None:
        self.world = world
        self.sent: list[FromCoordinator] = []
        self.closed: list[str] = []
        self.key = world.registry.machine(name)
        self.link = Link(self.key, "192.0.2.1", self.sent.append, self.closed.append)
        self.store = store

    async def come(self) -> Welcome:
        hello = Hello(version="1", instance="i", store=self.store, clock=1000.0 + self.world.clock.seconds())
        await self.world.fleet.hello(self.link, hello)
        return self.last(Welcome)

    def go(self) -> None:
        self.world.fleet.closed(self.link)

    def last(self, kind: type) -> object:
        return next(message for message in reversed(self.sent) if isinstance(message, kind))

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.sent)

    def started(self, uuid: str) -> None:
        self.world.fleet.received(self.link, Started(uuid))

    def ended(self, uuid: str, outcome: Outcome | None = None, head: bytes = b"") -> None:
        summary = OutputSummary(stdout_bytes=len(head))
        runs = bytes([len(head)]) if head else b""
        message = Ended(uuid, outcome or Outcome.exited(0), summary, 0.5, head, runs)
        self.world.fleet.received(self.link, message)


class World:
    """A coordinator without its door."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.ledger = Ledger(reactor, folder / "ledger", self.now)
        self.index = Index(reactor, folder / "index.sqlite", self.ledger)
        self.ledger.subscribe(self.index.follow)
        self.ledger.open()
        self.ledger.start()
        self.index.start()
        self.fleet = Fleet(self.clock, self.clock.seconds, self.now, grace=5.0)
        self.registry = Registry(self.ledger, self.index, lambda identity, key: b"certificate")
        new_uuid = UuidMaker(lambda: int(self.now() * 1000))
        self.runs = Runs(
            self.clock, self.ledger, self.index, self.registry, self.fleet, NoBlobs(), new_uuid, self.now, b"secret"
        )
        self.fleet.events = self.runs

    def now(self) -> float:
        return 1_800_000_000.0 + self.clock.seconds()

    async def load(self) -> None:
        await self.registry.load()
        await self.runs.load()

    async def join(self, name: str) -> None:
        await self.registry.register(Role.AGENT, name, generate().public_key(), f"key of {name}", "192.0.2.1", "open")

    async def agent(self, name: str = "ws1", store: str = "store-1") -> Agent:
        agent = Agent(self, name, store)
        await agent.come()
        return agent

    async def stop(self) -> None:
        await self.ledger.stop()
        await self.index.stop()

    def records(self, kind: type) -> list[Record]:
        return [entry.record for entry in self.ledger.read() if isinstance(entry.record, kind)]

    def job(self, uuid: str) -> OpenJob:
        run = cast(OpenRun, self.runs.find(uuid))
        return next(iter(run.jobs.values()))

    async def over(self, uuid: str) -> OpenJob:
        """Wait, in real time, until the run has ended."""
        run = cast(OpenRun, self.runs.find(uuid))
        while not run.ended:
            await run.changed.wait(reactor, 10)  # type: ignore[arg-type]
        return self.job(uuid)

    async def settled(self) -> None:
        """Wait until everything that was recorded so far has been taken in."""
        await self.index.ask(lambda connection: None)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def one(clock: Clock | None = None) -> World:
        made.append(World(tmp_path, clock))
        return made[-1]

    yield one
    for world in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return cast(World, make_world())


@pytest_twisted.ensureDeferred
async def test_a_run_is_recorded_started_ended_and_acknowledged(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    start = agent.last(Start)
    assert isinstance(start, Start) and start.uuid == uuid and start.command == TRUE.command
    [requested] = world.records(RunRequested)
    assert isinstance(requested, RunRequested) and requested.uuid == uuid
    agent.started(uuid)
    assert world.job(uuid).state is State.RUNNING
    agent.ended(uuid, head=b"hello")
    job = await world.over(uuid)
    assert job.state is State.COMPLETED
    view = cast(OpenRun, world.runs.find(uuid)).view(3).jobs[0]
    assert (view.stdout, view.truncated, view.output_bytes) == ("hel", True, 5)
    await world.settled()
    assert agent.count(Acknowledge) == 1
    assert world.runs.running() == 0


@pytest_twisted.ensureDeferred
async def test_the_start_expires_in_the_agents_own_clock(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    world.clock.advance(100)
    world.fleet.received(agent.link, Pulse(clock=1090.0))  # delayed on its way: must not make starts expire early
    await world.runs.request(JOSHUA, "key", TRUE)
    start = agent.last(Start)
    assert isinstance(start, Start)
    assert start.start_by == 1110.0


@pytest_twisted.ensureDeferred
async def test_an_offline_machine_fails_at_once_and_stays_failed(world: World) -> None:
    await world.join("ws1")
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    job = await world.over(uuid)
    assert job.end is not None
    assert job.end.outcome == Outcome(State.NOT_STARTED, reason="ws1 is offline (never seen yet)")
    agent = await world.agent()
    assert await world.runs.request(JOSHUA, "key", TRUE) == uuid
    assert agent.count(Start) == 0


@pytest_twisted.ensureDeferred
async def test_one_key_is_one_run(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    requests = [Deferred.fromCoroutine(world.runs.request(JOSHUA, "key", TRUE)) for _ in range(5)]
    uuids = await gatherResults(requests)
    assert len(set(uuids)) == 1
    assert await world.runs.request(JOSHUA, "key", TRUE) == uuids[0]
    assert agent.count(Start) == 1
    assert await world.runs.request(ANN, "key", TRUE) != uuids[0], "a key is its client's own"
    with pytest.raises(ProblemError) as caught:
        await world.runs.request(JOSHUA, "key", RunRequest("ws1", Command(shell="false")))
    assert caught.value.problem.kind is Kind.KEY_CONFLICT
    assert agent.count(Start) == 2


@pytest_twisted.ensureDeferred
async def test_an_unknown_machine_is_refused_with_close_matches_and_the_refusal_is_replayed(world: World) -> None:
    await world.join("joshua-ws1")
    asked = RunRequest("joshua-sw1", Command(shell="true"))
    with pytest.raises(ProblemError) as caught:
        await world.runs.request(JOSHUA, "key", asked)
    assert caught.value.problem.kind is Kind.UNKNOWN_MACHINE
    assert caught.value.problem.hint == "did you mean joshua-ws1?"
    await world.join("joshua-sw1")
    with pytest.raises(ProblemError):
        await world.runs.request(JOSHUA, "key", asked)
    await world.runs.request(JOSHUA, "another", asked)


@pytest_twisted.ensureDeferred
async def test_a_start_without_an_answer_is_unconfirmed_until_the_agent_tells(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    run = cast(OpenRun, world.runs.find(uuid))
    world.clock.advance(9.9)
    assert not run.settled
    world.clock.advance(0.2)
    assert run.settled and run.view(0).unconfirmed == ("ws1",)
    agent.ended(uuid, Outcome(State.NOT_STARTED, reason="the start came too late"))
    assert (await world.over(uuid)).state is State.NOT_STARTED
    assert run.view(0).unconfirmed == ()


@pytest_twisted.ensureDeferred
async def test_a_machine_that_comes_back_is_asked_about_what_was_sent_before(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    first.go()
    second = Agent(world, "ws1")
    assert (await second.come()).open == (uuid,)
    second.started(uuid)
    second.ended(uuid, Outcome.exited(3))
    assert (await world.over(uuid)).state is State.FAILED
    assert second.count(Start) == 0, "never dispatched again"


@pytest_twisted.ensureDeferred
async def test_a_machine_whose_store_is_gone_has_lost_its_jobs(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    first.started(uuid)
    first.go()
    second = Agent(world, "ws1", store="store-2")
    assert (await second.come()).open == ()
    assert (await world.over(uuid)).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_a_forgotten_machine_has_lost_its_jobs(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    agent.started(uuid)
    await world.registry.forget("ws1")
    assert (await world.over(uuid)).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_an_outcome_reported_again_is_acknowledged_but_recorded_once(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    agent.ended(uuid)
    agent.ended(uuid)
    await world.over(uuid)
    agent.ended(uuid, Outcome.exited(9))
    while agent.count(Acknowledge) < 2:
        await world.settled()
    [ended] = world.records(JobEnded)
    assert isinstance(ended, JobEnded) and ended.outcome == Outcome.exited(0)


@pytest_twisted.ensureDeferred
async def test_strange_reports_are_orphans_or_refused(world: World) -> None:
    await world.join("ws1")
    await world.join("ws2")
    agent, other = await world.agent("ws1"), await world.agent("ws2")
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    other.ended(uuid)
    unknown = UuidMaker(lambda: 1)()
    other.ended(unknown)
    while not other.count(Acknowledge):
        await world.settled()
    [orphan] = world.records(Orphan)
    assert isinstance(orphan, Orphan) and (orphan.uuid, orphan.machine) == (unknown, "ws2")
    assert world.job(uuid).end is None, "another machine's job is not its to end"
    agent.ended(uuid, Outcome(State.LOST, reason="so it says"))
    agent.ended(uuid, head=b"x" * 5)
    assert (await world.over(uuid)).state is State.COMPLETED


@pytest_twisted.ensureDeferred
async def test_cancel_reaches_the_agent_and_is_recorded(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    agent.started(uuid)
    answer = await world.runs.cancel(ANN, uuid)
    assert answer.cancelled == ("ws1",)
    assert agent.last(Cancel) == Cancel(uuid)
    [cancel] = world.records(CancelRequested)
    assert isinstance(cancel, CancelRequested) and cancel.client == "ann@desk"
    agent.ended(uuid, Outcome(State.CANCELLED, reason="cancelled"))
    await world.over(uuid)
    again = await world.runs.cancel(ANN, uuid)
    assert again.cancelled == ()


@pytest_twisted.ensureDeferred
async def test_a_cancel_for_a_machine_that_is_away_is_sent_when_it_is_back(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    first.started(uuid)
    first.go()
    await world.runs.cancel(JOSHUA, uuid)
    second = await world.agent()
    second.started(uuid)
    assert second.last(Cancel) == Cancel(uuid)


@pytest_twisted.ensureDeferred
async def test_after_a_restart_open_jobs_are_asked_about_and_never_sent_again(
    make_world: Callable[..., World],
) -> None:
    before = make_world()
    await before.join("ws1")
    agent = await before.agent()
    uuid = await before.runs.request(JOSHUA, "key", TRUE)
    agent.started(uuid)
    await before.stop()
    after = make_world()
    await after.load()
    assert after.job(uuid).state is State.REQUESTED
    back = Agent(after, "ws1")
    assert (await back.come()).open == (uuid,)
    assert await after.runs.request(JOSHUA, "key", TRUE) == uuid
    back.ended(uuid, Outcome.exited(0))
    assert (await after.over(uuid)).state is State.COMPLETED
    assert back.count(Start) == 0


@pytest_twisted.ensureDeferred
async def test_just_after_a_start_a_machine_seen_recently_is_waited_for(world: World) -> None:
    await world.join("ws1")
    world.fleet.expected.add(world.registry.machine("ws1").id)
    assert world.fleet.status(world.registry.machine("ws1").id) == "reconnecting"
    asked = Deferred.fromCoroutine(world.runs.request(JOSHUA, "key", TRUE))
    while not world.runs.running():
        await world.settled()
    agent = await world.agent()
    await asked
    assert agent.count(Start) == 1
    agent.go()
    world.clock.advance(6)
    late = await world.runs.request(JOSHUA, "late", TRUE)
    assert (await world.over(late)).state is State.NOT_STARTED


@pytest_twisted.ensureDeferred
async def test_an_outcome_waits_until_the_ledger_can_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    real, failures = os.fsync, []

    def failing(descriptor: int) -> None:
        failures.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    agent.ended(uuid)
    while not failures or not world.clock.getDelayedCalls()[-1:]:
        await world.settled()
    with pytest.raises(ProblemError) as caught:
        await world.runs.request(JOSHUA, "no space", TRUE)
    assert caught.value.problem.kind is Kind.STORAGE
    assert agent.count(Start) == 1, "what could not be recorded was not dispatched"
    monkeypatch.setattr(os, "fsync", real)
    run = cast(OpenRun, world.runs.find(uuid))
    while not run.ended:
        world.clock.advance(30)
        await world.settled()
    assert agent.count(Acknowledge) == 1


@pytest_twisted.ensureDeferred
async def test_a_caller_that_goes_away_changes_nothing(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    asked = Deferred.fromCoroutine(world.runs.request(JOSHUA, "key", TRUE))
    asked.addErrback(lambda _: None)
    asked.cancel()
    uuid = await world.runs.request(JOSHUA, "key", TRUE)
    assert agent.count(Start) == 1
    agent.ended(uuid)
    assert (await world.over(uuid)).state is State.COMPLETED


@pytest_twisted.ensureDeferred
async def test_no_environment_value_enters_the_ledger(world: World, tmp_path: Path) -> None:
    await world.join("ws1")
    agent = await world.agent()
    asked = RunRequest("ws1", Command(shell="true"), env={"API_TOKEN": "hunter2-value"})
    await world.runs.request(JOSHUA, "key", asked)
    start = agent.last(Start)
    assert isinstance(start, Start) and start.env == {"API_TOKEN": "hunter2-value"}
    text = b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    assert b"API_TOKEN" in text
    assert b"hunter2-value" not in text
