"""Runs on many machines, in memory: dispatch, ends, answers, limits, restarts; and nothing of it is quadratic."""

from __future__ import annotations

import cProfile
import hashlib
import pstats
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from clustersh.coordinator import chosen, open_runs, texts
from clustersh.coordinator.open_runs import OpenRun
from clustersh.coordinator.records import CancelRequested, JobEnded, RunRefused, RunRequested
from clustersh.coordinator.signals import Signal
from clustersh.wire.fleet import LeftOut
from clustersh.wire.jobs import HEAD_LIMIT, Command, Outcome, OutputSummary, State
from clustersh.wire.link import START_WITHIN_S, Acknowledge, Cancel, Chunk, Ended, Read, Start
from clustersh.wire.output import Stream, encode_runs, shorten
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Run, RunRequest

from .world import JOSHUA, Agent, World

TRUE = Command(shell="true")
ABC = RunRequest("a,b,c", TRUE)


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


async def joined(world: World, *names: str) -> dict[str, Agent]:
    """Return the agents of these machines, all of them online."""
    for name in names:
        await world.join(name)
    return {name: await world.agent(name) for name in names}


def run_of(world: World, uuid: str) -> OpenRun:
    return cast(OpenRun, world.runs.find(uuid))


async def when_ended(world: World, uuid: str, count: int) -> OpenRun:
    """Wait, in real time, until *count* of the run's jobs have ended."""
    run = run_of(world, uuid)
    while len(run.order) < count:
        await run.changed.wait(reactor, 10)  # type: ignore[arg-type]
    return run


def say(agent: Agent, uuid: str, stdout: bytes, stderr: bytes = b"", sums: tuple[str, str] | None = None) -> None:
    """The agent reports an end with this output, as a real one does."""
    whole = stdout + stderr
    runs = encode_runs([(Stream.STDOUT, len(stdout)), (Stream.STDERR, len(stderr))])
    head, head_runs = shorten(whole, runs, HEAD_LIMIT)
    claimed = sums or (hashlib.sha256(stdout).hexdigest(), hashlib.sha256(stderr).hexdigest())
    output = OutputSummary(len(stdout), len(stderr), *claimed)
    agent.world.fleet.received(agent.link, Ended(uuid, Outcome.exited(0), output, 0.1, head, head_runs))


def can_read(agent: Agent, stdout: bytes) -> list[Read]:
    """Let the agent answer questions for its output; return what it is asked."""
    asked: list[Read] = []

    def answer(message: Any) -> None:
        agent.sent.append(message)
        if isinstance(message, Read):
            asked.append(message)
            data = stdout[message.offset : message.offset + message.length]
            runs = encode_runs([(Stream.STDOUT, len(data))])
            chunk = Chunk(message.request, message.offset, data, len(stdout), True, runs)
            reactor.callLater(0, agent.world.fleet.received, agent.link, chunk)  # type: ignore[attr-defined]

    agent.link.send = answer
    return asked


def outputs(run: Run) -> dict[str, Any]:
    return {job.machine: job.stdout for job in run.jobs}


# -- dispatch


@pytest_twisted.ensureDeferred
async def test_all_machines_start_at_once_and_none_waits_for_another(make_world: Callable[[], World]) -> None:
    before = make_world()
    await joined(before, "a", "b", "c", "d")
    await before.stop()
    world = make_world()
    await world.load()
    world.fleet.expected = {world.registry.machine(name).id for name in ("c", "d")}
    a = await world.agent("a")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b,c,d", TRUE, env={"A": "1"}))
    run = await when_ended(world, uuid, 1)
    assert a.count(Start) == 1, "it is there"
    assert run.jobs[run.order[0]].machine.name == "b", "it is offline"
    c = await world.agent("c")
    await deferLater(reactor, 0)  # type: ignore[arg-type]
    start = c.last(Start)
    assert isinstance(start, Start) and start.env == {"A": "1"}, "it was reconnecting"
    assert run.request is not None, "one is still waited for"
    world.clock.advance(6)
    await when_ended(world, uuid, 2)
    assert run.by_name["d"].state is State.NOT_STARTED and run.request is None


@pytest_twisted.ensureDeferred
async def test_the_request_is_recorded_with_its_frozen_machines(world: World) -> None:
    await joined(world, "a", "b")
    await world.join("c")
    asked = RunRequest("a,b,c", TRUE, skip_offline=True)
    uuid = await world.requests.take(JOSHUA, "key", asked)
    assert await world.requests.take(JOSHUA, "key", asked) == uuid
    [record] = world.records(RunRequested)
    assert isinstance(record, RunRequested)
    assert [machine.name for machine in record.machines] == ["a", "b"]
    assert (record.skipped, record.raw, record.target) == (("c",), False, "a,b,c")
    view = await world.views.run(uuid, 0)
    assert (view.skipped, view.raw) == (("c",), False)


@pytest_twisted.ensureDeferred
async def test_new_machines_that_it_does_not_mean_are_recorded(world: World, make_world: Callable[[], World]) -> None:
    await joined(world, "a", "newbox")
    await world.registry.accept("a")
    world.targets.new_wait = True
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("all", TRUE))
    [record] = world.records(RunRequested)
    assert isinstance(record, RunRequested) and [machine.name for machine in record.machines] == ["a"]
    left_out = LeftOut(1, ("newbox",))
    assert record.left_out == (await world.views.run(uuid, 0)).left_out == left_out
    again = await world.requests.take(JOSHUA, "key", RunRequest("all", TRUE))
    await world.registry.accept("newbox")
    assert again == uuid and (await world.views.run(uuid, 0)).left_out == left_out, "it is what was so then"
    plain = await world.requests.take(JOSHUA, "other", RunRequest("a", TRUE))
    assert (await world.views.run(plain, 0)).left_out is None
    await world.stop()
    restarted = make_world()
    await restarted.load()
    assert (await restarted.views.run(uuid, 0)).left_out == left_out


@pytest_twisted.ensureDeferred
async def test_where_nobody_is_left_that_is_a_recorded_refusal(world: World) -> None:
    await world.join("a")
    asked = RunRequest("a", TRUE, skip_offline=True)
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "key", asked)
    assert caught.value.problem.kind is Kind.EMPTY_TARGET and caught.value.problem.started is False
    await world.agent("a")
    with pytest.raises(ProblemError) as again:
        await world.requests.take(JOSHUA, "key", asked)
    assert again.value.problem == caught.value.problem
    assert len(world.records(RunRefused)) == 1


@pytest_twisted.ensureDeferred
async def test_starts_that_are_not_acknowledged_are_told_apart(world: World) -> None:
    agents = await joined(world, "a", "b", "c")
    uuid = await world.requests.take(JOSHUA, "key", ABC)
    agents["a"].started(uuid)
    agents["b"].ended(uuid)
    run = await when_ended(world, uuid, 1)
    world.clock.advance(START_WITHIN_S)
    assert not run.settled
    assert (await world.views.run(uuid, 0)).unconfirmed == ("c",)
    agents["a"].ended(uuid)
    await when_ended(world, uuid, 2)
    assert run.settled and not run.ended
    agents["c"].started(uuid)
    assert not run.settled and (await world.views.run(uuid, 0)).unconfirmed == ()
    agents["c"].ended(uuid)
    await when_ended(world, uuid, 3)
    assert run.ended and world.clock.getDelayedCalls() == []


# -- cancel


@pytest_twisted.ensureDeferred
async def test_a_cancel_is_one_record_and_reaches_each_machine_that_runs(make_world: Callable[[], World]) -> None:
    before = make_world()
    await joined(before, "a", "b", "c")
    await before.stop()
    world = make_world()
    await world.load()
    world.fleet.expected = {world.registry.machine("c").id}
    a, b = await world.agent("a"), await world.agent("b")
    uuid = await world.requests.take(JOSHUA, "key", ABC)
    a.ended(uuid)
    await when_ended(world, uuid, 1)
    told = await world.runs.cancel(JOSHUA, uuid)
    assert (told.cancelled, told.ended) == (("b", "c"), ("a",))
    [record] = world.records(CancelRequested)
    assert isinstance(record, CancelRequested) and [machine.name for machine in record.machines] == ["b", "c"]
    assert (a.count(Cancel), b.count(Cancel)) == (0, 1)
    run = await when_ended(world, uuid, 2)
    assert run.by_name["c"].state is State.CANCELLED, "what was never sent ends at once"
    c = await world.agent("c")
    world.clock.advance(6)
    assert c.count(Start) == 0
    b.ended(uuid, Outcome(State.CANCELLED, reason="cancelled"))
    await when_ended(world, uuid, 3)
    assert (await world.runs.cancel(JOSHUA, uuid)).ended == ("a", "b", "c")


# -- answers


@pytest_twisted.ensureDeferred
async def test_a_folded_answer_has_each_text_once_and_shares_its_limit(world: World) -> None:
    agents = await joined(world, "a", "b", "c", "d")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b,c,d", TRUE))
    for name, text in (("a", b"long" * 100), ("b", b"same\n"), ("c", b"long" * 100), ("d", b"other" * 100)):
        say(agents[name], uuid, text)
    await when_ended(world, uuid, 4)
    view = await world.views.run(uuid, 105, fold=True)
    assert [job.same_as for job in view.jobs] == [None, None, "a", None]
    assert outputs(view) == {"a": ("long" * 13)[:50], "b": "same\n", "c": "", "d": "other" * 10}
    assert [job.truncated for job in view.jobs] == [True, False, True, True]
    whole = await world.views.run(uuid, 1 << 20)
    assert outputs(whole) == {"a": "long" * 100, "b": "same\n", "c": "long" * 100, "d": "other" * 100}
    assert not any(job.same_as or job.truncated for job in whole.jobs)
    assert outputs(await world.views.run(uuid, 0)) == dict.fromkeys("abcd", "")


@pytest_twisted.ensureDeferred
async def test_no_machine_puts_words_into_the_others_mouths(world: World) -> None:
    agents = await joined(world, "a", "b", "c")
    uuid = await world.requests.take(JOSHUA, "key", ABC)
    honest = b"all is well\n"
    claimed = (hashlib.sha256(honest).hexdigest(), hashlib.sha256(b"").hexdigest())
    say(agents["a"], uuid, b"all is lost\n", sums=claimed)
    say(agents["b"], uuid, honest)
    say(agents["c"], uuid, honest)
    await when_ended(world, uuid, 3)
    view = await world.views.run(uuid, 1000, fold=True)
    assert [(job.stdout, job.same_as) for job in view.jobs] == [
        ("all is lost\n", None),
        ("all is well\n", None),
        ("", "b"),
    ]
    recorded = {record.machine: record.output.stdout_sha256 for record in world.records(JobEnded)}  # type: ignore[union-attr]
    assert recorded["a"] == hashlib.sha256(b"all is lost\n").hexdigest() != recorded["b"]


@pytest_twisted.ensureDeferred
async def test_ends_are_told_in_their_order_as_they_come(world: World) -> None:
    agents = await joined(world, "a", "b", "c")
    uuid = await world.requests.take(JOSHUA, "key", ABC)
    waiting = Deferred.fromCoroutine(world.runs.more_ends(uuid, 0, 30))
    say(agents["c"], uuid, b"from c")
    await when_ended(world, uuid, 1)
    assert not waiting.called, "others may come along"
    say(agents["a"], uuid, b"from a")
    await when_ended(world, uuid, 2)
    world.clock.advance(1)
    assert waiting.called
    told = await world.views.ends(uuid, 0, 4)
    assert [(job.machine, job.stdout, job.truncated) for job in told.jobs] == [("c", "from", True), ("a", "from", True)]
    assert (told.next, told.ended) == (2, False)
    more = Deferred.fromCoroutine(world.runs.more_ends(uuid, told.next, 30))
    world.clock.advance(29)
    assert not more.called or run_of(world, uuid).unconfirmed
    say(agents["b"], uuid, b"from b")
    await when_ended(world, uuid, 3)
    last = await world.views.ends(uuid, told.next, 0)
    assert ([job.machine for job in last.jobs], last.next, last.ended) == (["b"], 3, True)
    nothing = await world.views.ends(uuid, 3, 0)
    assert (nothing.jobs, nothing.next, nothing.ended) == ((), 3, True)


@pytest_twisted.ensureDeferred
async def test_who_waits_for_ends_is_told_when_nothing_more_can_be_awaited(world: World) -> None:
    agents = await joined(world, "a", "b")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b", TRUE))
    agents["a"].ended(uuid)
    await when_ended(world, uuid, 1)
    waiting = Deferred.fromCoroutine(world.runs.more_ends(uuid, 1, 60))
    world.clock.advance(START_WITHIN_S)
    assert waiting.called and (await world.views.ends(uuid, 1, 0)).unconfirmed == ("b",)
    again = Deferred.fromCoroutine(world.runs.more_ends(uuid, 1, 60))
    assert not again.called, "who asks again and again does it no faster than this"
    world.clock.advance(1)
    assert again.called
    agents["b"].ended(uuid)
    await when_ended(world, uuid, 2)


@pytest_twisted.ensureDeferred
async def test_who_waits_for_ends_is_told_who_is_in_doubt_while_others_run(world: World) -> None:
    agents = await joined(world, "a", "b")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b", TRUE))
    agents["a"].started(uuid)
    waiting = Deferred.fromCoroutine(world.runs.more_ends(uuid, 0, 60))
    world.clock.advance(START_WITHIN_S)
    world.clock.advance(1)
    assert waiting.called and (await world.views.ends(uuid, 0, 0)).unconfirmed == ("b",)
    again = Deferred.fromCoroutine(world.runs.more_ends(uuid, 0, 60))
    world.clock.advance(2)
    assert not again.called, "there is no news"
    agents["b"].started(uuid)
    world.clock.advance(1)
    assert again.called and (await world.views.ends(uuid, 0, 0)).unconfirmed == ()
    for agent in agents.values():
        agent.ended(uuid)
    await when_ended(world, uuid, 2)


@pytest_twisted.ensureDeferred
async def test_one_job_is_waited_for_by_itself(world: World) -> None:
    agents = await joined(world, "a", "b")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b", TRUE))
    machine_id = agents["a"].key.id
    waiting = Deferred.fromCoroutine(world.runs.settle_job(uuid, machine_id, 60))
    agents["b"].ended(uuid)
    await when_ended(world, uuid, 1)
    assert not waiting.called
    say(agents["a"], uuid, b"hello")
    await when_ended(world, uuid, 2)
    assert waiting.called and (await world.views.job(uuid, machine_id, 4)).stdout == "hell"


@pytest_twisted.ensureDeferred
async def test_an_answer_of_ends_has_room_for_one_and_no_more_than_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT", 1000)
    agents = await joined(world, "a", "b", "c")
    uuid = await world.requests.take(JOSHUA, "key", ABC)
    for agent in agents.values():
        say(agent, uuid, agent.key.name.encode() * 700)
    run = await when_ended(world, uuid, 3)
    told = [await world.views.ends(uuid, after, 1 << 20) for after in range(3)]
    assert [[len(job.stdout) for job in each.jobs] for each in told] == [[700], [700], [700]]  # type: ignore[arg-type]
    assert [(each.next, each.ended) for each in told] == [(1, False), (2, False), (3, True)]
    assert [each.jobs[0].machine for each in told] == [run.jobs[machine_id].machine.name for machine_id in run.order]
    assert sum(len(job.stdout) for job in (await world.views.run(uuid, 1 << 20)).jobs) == 1000  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_a_long_command_stands_in_a_large_answer_once(world: World) -> None:
    await joined(world, "a", "b")
    command = "true " + "x" * 5000
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b", Command(shell=command)))
    view = await world.views.run(uuid, 0)
    assert view.command == command and {len(job.command) for job in view.jobs} == {1024}
    assert (await world.views.job(uuid, world.registry.machine("a").id, 0)).command == command


@pytest_twisted.ensureDeferred
async def test_who_waits_for_the_whole_run_is_woken_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = await joined(world, "a", "b", "c", "d")
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("all", TRUE))
    waits, wait = [], Signal.wait

    async def counted(self: Signal, *words: Any) -> None:
        waits.append(self)
        await wait(self, *words)

    monkeypatch.setattr(Signal, "wait", counted)
    waiting = [Deferred.fromCoroutine(world.runs.settle(uuid, 60)) for _ in range(3)]
    job = Deferred.fromCoroutine(world.runs.settle_job(uuid, agents["d"].key.id, 60))
    for agent in agents.values():
        agent.started(uuid)
        agent.ended(uuid)
    await gatherResults([*waiting, job])
    assert run_of(world, uuid).ended and len(waits) == 4


# -- what is no longer in memory


@pytest_twisted.ensureDeferred
async def test_a_run_that_only_the_index_knows_is_told_with_what_its_machines_still_have(
    make_world: Callable[[], World],
) -> None:
    before = make_world()
    agents = await joined(before, "a", "b", "c", "d", "e")
    asked = RunRequest("a,b,c,d,e", TRUE)
    uuid = await before.requests.take(JOSHUA, "key", asked)
    for name, text in (("c", b"same"), ("a", b"same"), ("e", b"offline"), ("b", b"alone"), ("d", b"same")):
        say(agents[name], uuid, text)
        await when_ended(before, uuid, len(run_of(before, uuid).order) + 1)
    in_memory = [await before.views.ends(uuid, after, 0) for after in (0, 2, 5)]
    await before.stop()

    world = make_world()
    await world.load()
    assert world.runs.find(uuid) is None
    assert await world.requests.take(JOSHUA, "key", asked) == uuid, "the same key is the same run"
    liar = can_read(await world.agent("a"), b"lies")
    honest = can_read(await world.agent("c"), b"same")
    unasked = can_read(await world.agent("d"), b"same")
    can_read(await world.agent("b"), b"alone")
    assert [await world.views.ends(uuid, after, 0) for after in (0, 2, 5)] == in_memory, "the order is the same"
    view = await world.views.run(uuid, 1000, fold=True)
    assert [(job.machine, job.stdout, job.same_as) for job in view.jobs] == [
        ("a", "same", None),
        ("b", "alone", None),
        ("c", "", "a"),
        ("d", "", "a"),
        ("e", "", None),
    ]
    assert (len(liar), len(honest), len(unasked)) == (1, 1, 0), "who says otherwise now than then is not believed"
    assert view.jobs[4].truncated and view.jobs[4].output_bytes == 7
    ends = await world.views.ends(uuid, 0, 3)
    assert [(job.machine, job.stdout) for job in ends.jobs] == [
        ("c", "sam"),
        ("a", "lie"),
        ("e", ""),
        ("b", "alo"),
        ("d", "sam"),
    ]


@pytest_twisted.ensureDeferred
async def test_machines_are_asked_some_at_a_time_and_not_for_ever(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_FETCHES", 2)
    before = make_world()
    names = ("a", "b", "c", "d", "e")
    agents = await joined(before, *names)
    uuid = await before.requests.take(JOSHUA, "key", RunRequest(",".join(names), TRUE))
    for agent in agents.values():
        say(agent, uuid, b"from " + agent.key.name.encode())
    await when_ended(before, uuid, 5)
    await before.stop()
    world = make_world()
    await world.load()
    back = [await world.agent(name) for name in names]
    answer = Deferred.fromCoroutine(world.views.run(uuid, 1000))
    while sum(agent.count(Read) for agent in back) < 2:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert sum(agent.count(Read) for agent in back) == 2
    asked = next(agent for agent in back if agent.count(Read))
    question = asked.last(Read)
    assert isinstance(question, Read)
    world.fleet.received(asked.link, Chunk(question.request, 0, b"from a", 6, True, b"\x06"))
    assert sum(agent.count(Read) for agent in back) == 3
    world.clock.advance(texts.FETCH_S)
    view = await answer
    assert sorted(outputs(view).values()) == ["", "", "", "", "from a"]
    assert all(agent.link.questions == {} for agent in back), "nobody is waited for any more"


@pytest_twisted.ensureDeferred
async def test_a_restart_in_the_middle_forgets_nothing_of_the_run(make_world: Callable[[], World]) -> None:
    before = make_world()
    agents = await joined(before, "a", "b", "c")
    uuid = await before.requests.take(JOSHUA, "key", ABC)
    say(agents["b"], uuid, b"from b")
    await when_ended(before, uuid, 1)
    say(agents["c"], uuid, b"from c")
    await when_ended(before, uuid, 2)
    agents["a"].started(uuid)
    await before.stop()

    world = make_world()
    await world.load()
    can_read(await world.agent("b"), b"from b")
    run = run_of(world, uuid)
    assert [run.jobs[machine_id].machine.name for machine_id in run.order] == ["b", "c"]
    view = await world.views.run(uuid, 1000)
    assert [(job.machine, job.status.value, job.stdout) for job in view.jobs] == [
        ("a", "requested", ""),
        ("b", "completed", "from b"),
        ("c", "completed", ""),
    ]
    a = Agent(world, "a")
    assert (await a.come()).open == (uuid,)
    assert (await Agent(world, "c").come()).open == (), "that one has ended"
    say(a, uuid, b"from a")
    await when_ended(world, uuid, 3)
    assert a.count(Start) == 0 and len(world.table) == 0


@pytest_twisted.ensureDeferred
async def test_what_a_reconnecting_machine_printed_is_waited_for(make_world: Callable[[], World]) -> None:
    before = make_world()
    agents = await joined(before, "a", "b")
    uuid = await before.requests.take(JOSHUA, "key", RunRequest("a,b", TRUE))
    for agent in agents.values():
        say(agent, uuid, b"from " + agent.key.name.encode())
    await when_ended(before, uuid, 2)
    await before.stop()
    world = make_world()
    await world.load()
    world.fleet.expected = {agents["a"].key.id}
    answer = Deferred.fromCoroutine(world.views.run(uuid, 1000))
    await world.settled()
    agent = Agent(world, "a")
    can_read(agent, b"from a")
    await agent.come()
    assert outputs(await answer) == {"a": "from a", "b": ""}


# -- limits


@pytest_twisted.ensureDeferred
async def test_a_client_pays_for_each_machine_of_its_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_runs, "MAX_OPEN_BYTES_EACH", 5 * 1024)
    agents = await joined(world, "a", "b", "c")
    uuid = await world.requests.take(JOSHUA, "first", ABC)
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "second", ABC)
    assert caught.value.problem.kind is Kind.RATE_LIMITED
    for agent in agents.values():
        agent.ended(uuid)
    await when_ended(world, uuid, 3)
    await world.requests.take(JOSHUA, "second", ABC)
    monkeypatch.setattr(open_runs, "MAX_OPEN_BYTES_EACH", 1024)
    with pytest.raises(ProblemError) as never:
        await world.requests.take(JOSHUA, "third", ABC)
    assert never.value.problem.kind is Kind.TOO_LARGE
    assert len(world.records(RunRequested)) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_sent_to_all_together_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "MAX_SENT", 3000)
    await joined(world, "a", "b", "c")
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(JOSHUA, "key", RunRequest("a,b,c", TRUE, env={"A": "x" * 1000}))
    assert caught.value.problem.kind is Kind.TOO_LARGE and "--script" in caught.value.problem.hint
    await world.requests.take(JOSHUA, "small", RunRequest("a,b", TRUE, env={"A": "x" * 1000}))


async def _whole_life(world: World, count: int) -> int:
    """Return how many functions are called for a run on *count* machines, from the request to its answers."""
    names = [f"{count}-{number}" for number in range(count)]
    agents: Sequence[Agent] = list((await joined(world, *names)).values())
    profile = cProfile.Profile()
    with profile:
        uuid = await world.requests.take(JOSHUA, f"run-{count}", RunRequest(",".join(names), TRUE, skip_offline=True))
        for agent in agents:
            agent.started(uuid)
        told = await world.runs.cancel(JOSHUA, uuid)
        for number, agent in enumerate(agents):
            say(agent, uuid, b"%d" % (number % 7))
        await when_ended(world, uuid, count)
        await world.settled()
        view = await world.views.run(uuid, 1 << 20, fold=True)
        after = 0
        while not (ends := await world.views.ends(uuid, after, 10)).ended:
            after = ends.next
        for job in view.jobs:
            world.views.live(job)
        page = await world.views.job(uuid, agents[-1].key.id, 10)
    assert len(told.cancelled) == count and len(view.jobs) == count and page.machine == names[-1]
    assert all(agent.count(Acknowledge) == 1 for agent in agents)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest_twisted.ensureDeferred
async def test_four_times_the_machines_are_four_times_the_work(world: World) -> None:
    small = await _whole_life(world, 100)
    large = await _whole_life(world, 400)
    assert large < 4.5 * small, (small, large)
