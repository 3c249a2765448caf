"""A run's life, in memory: a real ledger and index, a Clock, and agents that are plain objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from clustersh.coordinator import open_runs
from clustersh.coordinator.bus import Answer
from clustersh.coordinator.fleet import ANSWER_S, MAX_FEEDING
from clustersh.coordinator.limits import RateLimit
from clustersh.coordinator.open_runs import OpenRun
from clustersh.coordinator.records import CancelRequested, JobEnded, Orphan, RunRequested, StoreSeen
from clustersh.trust.identity import Role
from clustersh.trust.keys import generate
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import HEAD_LIMIT, MAX_COMMAND, Command, Outcome, OutputSummary, State
from clustersh.wire.link import (
    MAX_READS,
    NEVER_SEEN,
    Acknowledge,
    Cancel,
    Ended,
    Pulse,
    Read,
    Start,
    Stdin,
    StopRead,
    Welcome,
)
from clustersh.wire.output import Stream
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import RunRequest

from .world import ANN, JOSHUA, TRUE, Agent, World


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
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    start = agent.last(Start)
    assert isinstance(start, Start) and start.uuid == uuid and start.command == TRUE.command
    [requested] = world.records(RunRequested)
    assert isinstance(requested, RunRequested) and requested.uuid == uuid
    agent.started(uuid)
    assert world.job(uuid).state is State.RUNNING
    agent.ended(uuid, head=b"hello")
    job = await world.over(uuid)
    assert job.state is State.COMPLETED
    view = (await world.views.run(uuid, 3)).jobs[0]
    assert (view.stdout, view.truncated, view.output_bytes) == ("hel", True, 5)
    await world.settled()
    assert agent.count(Acknowledge) == 1
    assert len(world.table) == 0


@pytest_twisted.ensureDeferred
async def test_the_start_expires_in_the_agents_own_clock(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    world.clock.advance(100)
    world.fleet.received(agent.link, Pulse(clock=1090.0))  # delayed on its way: must not make starts expire early
    await world.requests.take(JOSHUA, "key", TRUE)
    start = agent.last(Start)
    assert isinstance(start, Start)
    assert start.start_by == 1110.0


@pytest_twisted.ensureDeferred
async def test_an_offline_machine_fails_at_once_and_stays_failed(world: World) -> None:
    await world.join("ws1")
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    job = await world.over(uuid)
    assert job.end is not None
    assert job.end.outcome == Outcome(State.NOT_STARTED, reason="ws1 is offline (never seen yet)")
    agent = await world.agent()
    assert await world.requests.take(JOSHUA, "key", TRUE) == uuid
    assert agent.count(Start) == 0


@pytest_twisted.ensureDeferred
async def test_one_key_is_one_run(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    requests = [Deferred.fromCoroutine(world.requests.take(JOSHUA, "key", TRUE)) for _ in range(5)]
    uuids = await gatherResults(requests)
    assert len(set(uuids)) == 1
    assert await world.requests.take(JOSHUA, "key", TRUE) == uuids[0]
    assert agent.count(Start) == 1
    assert await world.requests.take(ANN, "key", TRUE) != uuids[0], "a key is its client's own"
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "key", RunRequest("ws1", Command(shell="false")))
    assert caught.value.problem.kind is Kind.KEY_CONFLICT
    assert agent.count(Start) == 2


@pytest_twisted.ensureDeferred
async def test_an_unknown_machine_is_refused_with_close_matches_and_the_refusal_is_replayed(world: World) -> None:
    await world.join("joshua-ws1")
    asked = RunRequest("joshua-sw1", Command(shell="true"))
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "key", asked)
    assert caught.value.problem.kind is Kind.UNKNOWN_MACHINE
    assert caught.value.problem.hint == "did you mean joshua-ws1?"
    await world.join("joshua-sw1")
    with pytest.raises(ProblemError):
        await world.requests.take(JOSHUA, "key", asked)
    await world.requests.take(JOSHUA, "another", asked)


@pytest_twisted.ensureDeferred
async def test_a_start_without_an_answer_is_unconfirmed_until_the_agent_tells(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    run = cast(OpenRun, world.runs.find(uuid))
    world.clock.advance(9.9)
    assert not run.settled
    world.clock.advance(0.2)
    assert run.settled and (await world.views.run(uuid, 0)).unconfirmed == ("ws1",)
    agent.ended(uuid, Outcome(State.NOT_STARTED, reason="the start came too late"))
    assert (await world.over(uuid)).state is State.NOT_STARTED
    assert (await world.views.run(uuid, 0)).unconfirmed == ()


@pytest_twisted.ensureDeferred
async def test_a_machine_that_comes_back_is_asked_about_what_was_sent_before(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
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
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    first.started(uuid)
    first.go()
    second = Agent(world, "ws1", store="store-2")
    assert (await second.come()).open == ()
    assert (await world.over(uuid)).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_a_job_that_ran_is_never_said_not_to_have_started(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    first.started(uuid)
    first.go()
    copy = Agent(world, "ws1")
    assert (await copy.come()).open == (uuid,)
    copy.ended(uuid, NEVER_SEEN)
    assert (await world.over(uuid)).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_a_forgotten_machine_has_lost_its_jobs(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    agent.started(uuid)
    await world.registry.forget("ws1")
    assert (await world.over(uuid)).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_an_outcome_reported_again_is_acknowledged_but_recorded_once(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
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
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
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
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
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
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
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
    uuid = await before.requests.take(JOSHUA, "key", TRUE)
    agent.started(uuid)
    await before.stop()
    after = make_world()
    await after.load()
    assert after.job(uuid).state is State.REQUESTED
    back = Agent(after, "ws1")
    assert (await back.come()).open == (uuid,)
    assert await after.requests.take(JOSHUA, "key", TRUE) == uuid
    back.ended(uuid, Outcome.exited(0))
    assert (await after.over(uuid)).state is State.COMPLETED
    assert back.count(Start) == 0


@pytest_twisted.ensureDeferred
async def test_just_after_a_start_a_machine_seen_recently_is_waited_for(world: World) -> None:
    await world.join("ws1")
    world.fleet.expected.add(world.registry.machine("ws1").id)
    assert world.fleet.status(world.registry.machine("ws1").id) == "reconnecting"
    asked = Deferred.fromCoroutine(world.requests.take(JOSHUA, "key", TRUE))
    while not len(world.table):
        await world.settled()
    agent = await world.agent()
    await asked
    assert agent.count(Start) == 1
    agent.go()
    world.clock.advance(6)
    late = await world.requests.take(JOSHUA, "late", TRUE)
    assert (await world.over(late)).state is State.NOT_STARTED


@pytest_twisted.ensureDeferred
async def test_an_outcome_waits_until_the_ledger_can_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    real, failures = os.fsync, []

    def failing(descriptor: int) -> None:
        failures.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    agent.ended(uuid)
    while not failures or not world.clock.getDelayedCalls()[-1:]:
        await world.settled()
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "no space", TRUE)
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
    asked = Deferred.fromCoroutine(world.requests.take(JOSHUA, "key", TRUE))
    asked.addErrback(lambda _: None)
    asked.cancel()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    assert agent.count(Start) == 1
    agent.ended(uuid)
    assert (await world.over(uuid)).state is State.COMPLETED


@pytest_twisted.ensureDeferred
async def test_no_environment_value_enters_the_ledger(world: World, tmp_path: Path) -> None:
    await world.join("ws1")
    agent = await world.agent()
    asked = RunRequest("ws1", Command(shell="true"), env={"API_TOKEN": "hunter2-value"})
    await world.requests.take(JOSHUA, "key", asked)
    start = agent.last(Start)
    assert isinstance(start, Start) and start.env == {"API_TOKEN": "hunter2-value"}
    text = b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    assert b"API_TOKEN" in text
    assert b"hunter2-value" not in text


@pytest_twisted.ensureDeferred
async def test_a_run_whose_words_grow_when_quoted_is_read_again_after_a_restart(
    make_world: Callable[..., World],
) -> None:
    before = make_world()
    await before.join("ws1")
    await before.agent()
    asked = RunRequest("ws1", Command(argv=("echo", "'" * 300_000)))
    uuid = await before.requests.take(JOSHUA, "key", asked)
    await before.stop()
    after = make_world()
    await after.load()
    view = await after.views.run(uuid, 0)
    assert view.command == asked.command.text and len(view.command) > MAX_COMMAND


@pytest_twisted.ensureDeferred
async def test_lost_jobs_are_recorded_before_the_store_that_replaces_theirs(world: World) -> None:
    await world.join("ws1")
    first = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    first.started(uuid)
    first.go()
    await world.agent(store="store-2")
    kinds = [type(entry.record) for entry in world.ledger.read()]
    assert kinds[-2:] == [JobEnded, StoreSeen], "a crash in between must not turn lost into never started"
    assert world.job(uuid).state is State.LOST


@pytest_twisted.ensureDeferred
async def test_a_machine_forgotten_while_it_links_is_told_so(world: World) -> None:
    await world.join("ws1")
    agent = Agent(world, "ws1")
    await world.registry.forget("ws1")
    with pytest.raises(ProblemError) as caught:
        await agent.come()
    assert caught.value.problem.kind is Kind.UNTRUSTED
    assert agent.count(Welcome) == 0


@pytest_twisted.ensureDeferred
async def test_a_run_that_is_over_is_not_kept_in_memory_by_its_timer(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    for key, started in (("one", True), ("two", False)):
        uuid = await world.requests.take(JOSHUA, key, TRUE)
        assert len(world.clock.getDelayedCalls()) == 1
        if started:
            agent.started(uuid)
        agent.ended(uuid)
        await world.over(uuid)
        assert world.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_clients_share_of_open_runs_is_bounded_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_runs, "MAX_OPEN_EACH", 2)
    monkeypatch.setattr(open_runs, "MAX_OPEN_BYTES_EACH", 3000)
    await world.join("ws1")
    agent = await world.agent()
    uuids = [await world.requests.take(JOSHUA, str(number), TRUE) for number in range(2)]
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "third", TRUE)
    assert caught.value.problem.kind is Kind.RATE_LIMITED
    with pytest.raises(ProblemError):
        await world.requests.take(ANN, "large", RunRequest("ws1", Command(shell="true"), env={"A": "x" * 2000}))
    await world.requests.take(ANN, "small", TRUE)
    agent.ended(uuids[0])
    await world.over(uuids[0])
    await world.requests.take(JOSHUA, "third", TRUE)
    assert len(world.records(RunRequested)) == 4, "what was refused for now is not recorded"


@pytest.mark.parametrize(
    ("head", "runs"),
    [(b"", b"\0" * 100_000), (b"x", b"\x01\0\0"), (b"x" * 3, b"\x02"), (b"x" * (HEAD_LIMIT + 1), b"\x81\x80\x08")],
)
@pytest_twisted.ensureDeferred
async def test_an_outcome_whose_output_can_t_be_is_not_taken(world: World, head: bytes, runs: bytes) -> None:
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    summary = OutputSummary(stdout_bytes=len(head))
    world.fleet.received(agent.link, Ended(uuid, Outcome.exited(0), summary, 0.5, head, runs))
    assert not world.job(uuid).ending
    assert world.complaints == [("ws1", "reports an outcome that can't be")]


@pytest_twisted.ensureDeferred
async def test_reports_of_unknown_jobs_are_recorded_up_to_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.join("ws1")
    agent = await world.agent()
    monkeypatch.setattr(world.outcomes, "_orphans", RateLimit(world.clock.seconds, 1.0, 3.0))
    unknown = UuidMaker(lambda: 1)
    works = [world.fleet.received(agent.link, Ended(unknown(), Outcome.exited(0))) for _ in range(5)]
    await gatherResults([work for work in works if work is not None])
    assert len(world.records(Orphan)) == agent.count(Acknowledge) == 3
    assert set(world.complaints) == {("ws1", "reports too many unknown jobs")}


@pytest_twisted.ensureDeferred
async def test_an_agent_that_never_answers_a_read_is_given_up(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    machine = agent.key.id
    answer = world.fleet.ask(machine, lambda request: Read(request, "uuid", Stream.BOTH, 0, 1, wait_s=30.0))
    world.clock.advance(30.0 + ANSWER_S - 0.1)
    assert not answer.called
    world.clock.advance(0.2)
    with pytest.raises(ProblemError, match="does not answer"):
        await answer
    assert agent.count(StopRead) == 1 and agent.link.questions == {}


@pytest_twisted.ensureDeferred
async def test_pieces_of_stdin_wait_in_bounds_of_their_own_and_can_be_withdrawn(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()

    def feed() -> Deferred[Answer]:
        return world.fleet.ask(agent.key.id, lambda request: Stdin(request, "uuid", 0, b"x"))

    def read() -> Deferred[Answer]:
        return world.fleet.ask(agent.key.id, lambda request: Read(request, "uuid", Stream.BOTH, 0, 1))

    waiting = [feed() for _ in range(MAX_FEEDING)]
    with pytest.raises(ProblemError) as caught:
        feed()
    assert caught.value.problem.kind is Kind.RATE_LIMITED
    readers = [read() for _ in range(MAX_READS)]
    with pytest.raises(ProblemError):
        read()
    waiting[0].addErrback(lambda _: None)
    waiting[0].cancel()
    waiting.append(feed())
    world.fleet.closed(agent.link)
    for each in (*waiting[1:], *readers):
        each.addErrback(lambda failure: failure.trap(ProblemError))
    assert world.clock.getDelayedCalls() == [] and agent.link.feeding == 0


@pytest_twisted.ensureDeferred
async def test_a_machine_with_another_name_keeps_its_link(world: World) -> None:
    await world.join("ws1")
    agent = await world.agent()
    world.registry.watch_renamed(world.fleet.renamed)
    await world.registry.register(Role.AGENT, "db1", generate().public_key(), "key of ws1", "192.0.2.1", "admin")
    assert (agent.link.machine.name, agent.closed) == ("db1", [])
    assert world.fleet.status(agent.key.id) == "online"
