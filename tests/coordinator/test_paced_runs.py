"""Runs that go in batches, in memory: a real ledger and index, a Clock, and agents that are plain objects."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from clustersh.coordinator.open_runs import OpenJob, OpenRun
from clustersh.coordinator.records import BatchBegun, CancelRequested, JobEnded, RunStopped, Summary
from clustersh.wire.fleet import Pace
from clustersh.wire.jobs import BlobRef, Command, Outcome, State
from clustersh.wire.link import NEVER_SEEN, START_WITHIN_S, Cancel, Start
from clustersh.wire.problems import ProblemError
from clustersh.wire.rest import RunRequest

from .world import JOSHUA, Agent, World

NAMES = ("a", "b", "c", "d", "e")
ALL = RunRequest("a,b,c,d,e", Command(shell="true"), pace=Pace(rolling="2"))
FAILED = Outcome.exited(1)


class PacedWorld(World):
    """A world with five machines."""

    agents: dict[str, Agent]

    async def populate(self, *names: str) -> None:
        self.agents = {name: await self.agent(name) for name in names}

    async def ask(self, asked: RunRequest = ALL, **pace: Any) -> OpenRun:
        if pace:
            asked = msgspec.structs.replace(asked, pace=Pace(**pace))
        return self.open(await self.requests.take(JOSHUA, f"key-{len(self.table)}", asked))

    def open(self, uuid: str) -> OpenRun:
        run = self.runs.find(uuid)
        assert run is not None
        return run

    async def settled(self) -> None:
        """Wait until what is on its way to the ledger is there, and taken in."""
        with contextlib.suppress(ProblemError):
            await self.ledger.append(Summary("settled", 1))
        await super().settled()

    async def until(self, condition: Callable[[], Any], what: str = "", seconds: float = 0) -> None:
        """Wait until *condition* holds; *seconds* pass between two looks."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, what or condition
            self.clock.advance(seconds)
            await self.settled()

    async def begun(self, *names: str) -> None:
        """Wait until exactly these machines have been sent a start in all, each of them once."""
        await self.until(lambda: len(self.sent()) >= len(names), f"only {self.sent()} began")
        for _ in range(3):
            await self.settled()
        assert self.sent() == list(names)

    def sent(self) -> list[str]:
        return [name for name, agent in self.agents.items() for _ in range(agent.count(Start))]

    def end(self, run: OpenRun, *names: str, outcome: Outcome | None = None) -> None:
        for name in names:
            self.agents[name].ended(run.uuid, outcome)

    def states(self, run: OpenRun) -> dict[str, str]:
        return {job.machine.name: job.state.value for job in run.jobs.values()}

    def batches(self) -> list[tuple[str, ...]]:
        names = {machine.id: machine.name for machine in self.registry.machines()}
        return [
            tuple(names[each] for each in record.machine_ids)
            for record in self.records(BatchBegun)
            if isinstance(record, BatchBegun)
        ]

    async def over(self, uuid: str) -> OpenJob:
        """Wait until the run has ended."""
        await self.until(lambda: self.open(uuid).ended, f"{uuid} does not end")
        return self.job(uuid)

    async def seconds(self, seconds: float) -> None:
        """Let time pass, a second at once."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            await self.settled()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[[], PacedWorld]]:
    made: list[PacedWorld] = []

    def one() -> PacedWorld:
        made.append(PacedWorld(tmp_path))
        return made[-1]

    yield one
    for world in made:
        for call in world.clock.getDelayedCalls():
            call.cancel()
        pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@pytest.fixture
def world(make_world: Callable[[], PacedWorld]) -> PacedWorld:
    made = make_world()

    async def fill() -> None:
        for name in NAMES:
            await made.join(name)
        await made.populate(*NAMES)

    pytest_twisted.blockon(Deferred.fromCoroutine(fill()))
    return made


async def restarted(before: PacedWorld, make_world: Callable[[], PacedWorld], *names: str) -> PacedWorld:
    """Stop, and let a new life begin; *names* have their links again."""
    await before.paced.stop()
    await before.stop()
    after = make_world()
    await after.load()
    await after.populate(*names)
    return after


@pytest_twisted.ensureDeferred
async def test_each_batch_is_recorded_and_sent_once_the_one_before_is_over(world: PacedWorld) -> None:
    run = await world.ask(rolling="2", canary=1)
    await world.begun("a")
    assert world.batches() == [("a",)]
    world.end(run, "a")
    await world.begun("a", "b", "c")
    world.end(run, "b")
    await world.begun("a", "b", "c")
    world.end(run, "c")
    await world.begun("a", "b", "c", "d", "e")
    assert world.batches() == [("a",), ("b", "c"), ("d", "e")]
    assert run.request is None, "nothing is kept that has been sent everywhere"
    world.end(run, "d", "e", outcome=FAILED)
    await world.over(run.uuid)
    assert (run.stopped, world.records(RunStopped)) == (None, []), "there was nothing left to stop"


@pytest_twisted.ensureDeferred
async def test_it_stops_after_the_batch_in_which_one_failed(world: PacedWorld) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    world.end(run, "a", outcome=FAILED)
    await world.begun("a", "b")
    world.end(run, "b")
    await world.over(run.uuid)
    reason = "stopped after 1 of 2 failed: a"
    assert world.states(run) == {"a": "failed", "b": "completed", **dict.fromkeys("cde", "not-started")}
    assert [job.end.outcome.reason for job in run.jobs.values() if job.end][2:] == [reason] * 3
    assert (run.stopped, world.records(RunStopped)) == (reason, [RunStopped(run.uuid, reason)])
    assert world.sent() == ["a", "b"]
    assert run.request is None, "environment values are not kept beyond the end"


@pytest_twisted.ensureDeferred
async def test_so_many_may_fail_and_no_more(world: PacedWorld) -> None:
    run = await world.ask(rolling="1", max_failures="20%")
    for name in NAMES[:2]:
        await world.begun(*NAMES[: NAMES.index(name) + 1])
        world.end(run, name, outcome=FAILED)
    await world.over(run.uuid)
    assert run.stopped == "stopped after 2 of 2 failed: a, b"


@pytest_twisted.ensureDeferred
async def test_a_machine_that_is_offline_has_failed(world: PacedWorld) -> None:
    world.agents["b"].go()
    run = await world.ask()
    await world.until(lambda: world.sent() == ["a"])
    world.end(run, "a")
    await world.over(run.uuid)
    assert run.stopped == "stopped after 1 of 2 failed: b"


@pytest_twisted.ensureDeferred
async def test_an_unconfirmed_start_has_failed_until_it_turns_up(world: PacedWorld) -> None:
    run = await world.ask(rolling="2", max_failures="1")
    await world.begun("a", "b")
    world.agents["a"].started(run.uuid)
    world.end(run, "a")
    await world.seconds(START_WITHIN_S + 3)
    await world.begun("a", "b", "c", "d")
    assert list(run.unconfirmed) == [world.agents["b"].key.id]
    await world.seconds(1)
    world.end(run, "c", outcome=FAILED)
    world.agents["b"].started(run.uuid)
    world.end(run, "d")
    await world.until(lambda: len(run.order) == 3)
    await world.seconds(2)
    assert (world.sent(), run.stopped) == (["a", "b", "c", "d"], None), "b runs after all: the batch is not over"
    world.end(run, "b")
    await world.begun(*NAMES)


@pytest_twisted.ensureDeferred
async def test_a_machine_that_goes_away_in_its_batch_is_waited_for_a_minute(world: PacedWorld) -> None:
    world.clock.advance(100)
    run = await world.ask()
    await world.begun("a", "b")
    for name in ("a", "b"):
        world.agents[name].started(run.uuid)
    world.end(run, "a")
    world.agents["b"].go()
    await world.seconds(58)
    assert run.stopped is None
    await world.seconds(4)
    left = {"a": "completed", "b": "running", **dict.fromkeys("cde", "not-started")}
    await world.until(lambda: world.states(run) == left)
    assert run.stopped == "stopped after 1 of 2 failed: b"


@pytest_twisted.ensureDeferred
async def test_a_machine_that_is_back_within_a_minute_is_waited_for(world: PacedWorld) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    world.end(run, "a")
    world.agents["b"].started(run.uuid)
    world.agents["b"].go()
    await world.seconds(40)
    back = Agent(world, "b")
    assert (await back.come()).open == (run.uuid,)
    await world.seconds(40)
    assert world.sent() == ["a", "b"] and run.stopped is None
    back.ended(run.uuid)
    await world.begun("a", "b", "c", "d")


@pytest_twisted.ensureDeferred
async def test_cancel_ends_what_runs_and_begins_no_more(world: PacedWorld) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    world.end(run, "a")
    answer = await world.runs.cancel(JOSHUA, run.uuid)
    assert set(answer.cancelled) | set(answer.ended) == set(NAMES)
    assert world.agents["b"].last(Cancel) == Cancel(run.uuid)
    await world.until(lambda: list(world.states(run).values())[2:] == ["cancelled"] * 3)
    assert world.states(run)["b"] == "requested"
    world.end(run, "b", outcome=Outcome(State.CANCELLED, reason="cancelled"))
    await world.over(run.uuid)
    assert (world.sent(), world.batches(), run.stopped) == (["a", "b"], [("a", "b")], None)


@pytest_twisted.ensureDeferred
async def test_a_machine_cancelled_or_forgotten_before_its_turn_is_left_out(world: PacedWorld) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    await world.runs.cancel(JOSHUA, run.uuid, world.agents["c"].key.id)
    await world.registry.forget("d")
    world.end(run, "a", "b")
    await world.begun("a", "b", "e")
    world.end(run, "e")
    await world.over(run.uuid)
    states = {"c": "cancelled", "d": "not-started", **dict.fromkeys("abe", "completed")}
    assert (world.states(run), run.stopped) == (states, None)


@pytest_twisted.ensureDeferred
async def test_a_batch_takes_no_machine_whose_end_is_being_recorded(world: PacedWorld) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    world.end(run, "a")
    await world.until(lambda: run.jobs[world.agents["a"].key.id].end)
    cancelling = Deferred.fromCoroutine(world.runs.cancel(JOSHUA, run.uuid, world.agents["c"].key.id))
    world.end(run, "b")
    await cancelling
    await world.begun("a", "b", "d", "e")
    assert world.batches() == [("a", "b"), ("d", "e")]


@pytest_twisted.ensureDeferred
async def test_what_can_not_be_recorded_is_not_begun(world: PacedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await world.ask()
    await world.begun("a", "b")
    world.end(run, "b")
    await world.until(lambda: run.jobs[world.agents["b"].key.id].end)
    write, full, refused = world.ledger._write, [True], []

    def without_room(records: Any) -> Any:
        if full[0] and any(isinstance(each, BatchBegun | RunStopped) for each in records):
            refused.append(records)
            raise OSError(28, os.strerror(28))
        return write(records)

    monkeypatch.setattr(world.ledger, "_write", without_room)
    world.end(run, "a")
    await world.until(lambda: len(refused) >= 4, seconds=1)
    assert BatchBegun in map(type, refused[0])
    assert all(RunStopped in map(type, records) for records in refused[1:])
    assert run.stopped is None and world.sent() == ["a", "b"]
    full[0] = False
    await world.until(lambda: run.ended, seconds=1)
    assert "the coordinator can't write its ledger: No space left on device" in str(run.stopped)
    assert world.sent() == ["a", "b"]


# -- a new life of the coordinator


@pytest_twisted.ensureDeferred
async def test_after_a_restart_later_batches_are_sent_and_begun_ones_asked_about(
    world: PacedWorld, make_world: Callable[[], PacedWorld]
) -> None:
    asked = msgspec.structs.replace(ALL, cwd="/tmp", timeout_s=7.0, idle_timeout_s=3.0, keep_files=True)
    before = await world.ask(asked)
    await world.begun("a", "b")
    first = world.agents["a"].last(Start)
    world.end(before, "a")
    await world.until(lambda: before.jobs[world.agents["a"].key.id].end)
    after = await restarted(world, make_world, *NAMES)
    run = after.open(before.uuid)
    assert after.states(run) == {"a": "completed", **dict.fromkeys("bcde", "requested")}
    assert after.table.at_once(JOSHUA.id) == 2, "a client's limit counts its largest batch, as before"
    await after.seconds(2)
    assert after.sent() == []
    assert (await Agent(after, "b").come()).open == (run.uuid,)
    assert (await Agent(after, "c").come()).open == (), "what was never sent is not asked about"
    after.agents["b"] = await after.agent("b")
    after.agents["c"] = await after.agent("c")
    after.end(run, "b")
    await after.begun("c", "d")
    again = after.agents["c"].last(Start)
    assert isinstance(first, Start) and isinstance(again, Start)
    same = ("uuid", "client", "command", "cwd", "env", "timeout_s", "idle_timeout_s", "stdin", "files", "keep_files")
    assert [getattr(again, name) for name in same] == [getattr(first, name) for name in same]
    after.end(run, "c", "d")
    await after.begun("c", "d", "e")
    after.end(run, "e")
    await after.over(run.uuid)
    assert after.states(run) == dict.fromkeys(NAMES, "completed")
    assert after.batches() == [("a", "b"), ("c", "d"), ("e",)]


@pytest_twisted.ensureDeferred
async def test_failures_from_before_a_restart_count(world: PacedWorld, make_world: Callable[[], PacedWorld]) -> None:
    before = await world.ask(rolling="2", canary=1, max_failures="1")
    await world.begun("a")
    world.end(before, "a", outcome=FAILED)
    await world.begun("a", "b", "c")
    after = await restarted(world, make_world, *NAMES)
    run = after.open(before.uuid)
    after.end(run, "b", outcome=NEVER_SEEN)
    after.end(run, "c")
    await after.over(run.uuid)
    assert run.stopped == "stopped after 2 of 3 failed: a, b"
    third = await restarted(after, make_world)
    assert (await third.views.run(run.uuid, 0)).stopped == run.stopped


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"env": {"TOKEN": "secret"}}, "the coordinator was restarted, and keeps no environment values"),
        (
            {"command": Command(script=BlobRef("0" * 64, 3))},
            "the coordinator was restarted, and has the run's files no more",
        ),
        ({"files": BlobRef("0" * 64, 3)}, "the coordinator was restarted, and has the run's files no more"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_wholly_in_the_record_ends_after_a_restart(
    world: PacedWorld, make_world: Callable[[], PacedWorld], more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    before = await world.ask(msgspec.structs.replace(ALL, **more))
    await world.begun("a", "b")
    world.end(before, "a")
    await world.until(lambda: before.jobs[world.agents["a"].key.id].end)
    await world.stop()
    after = make_world()
    await after.registry.load()
    await after.runs.load()
    after.open(before.uuid).blobs = frozenset()  # as where they were evicted
    await after.paced.load()
    await after.populate(*NAMES)
    run = after.open(before.uuid)
    await after.until(lambda: run.stopped)
    after.end(run, "b")
    await after.over(run.uuid)
    assert run.stopped == reason
    assert after.states(run) == {**dict.fromkeys("ab", "completed"), **dict.fromkeys("cde", "not-started")}
    assert after.sent() == []
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())


@pytest_twisted.ensureDeferred
async def test_after_a_restart_what_was_stopped_or_cancelled_is_not_begun(
    world: PacedWorld, make_world: Callable[[], PacedWorld]
) -> None:
    stopped, cancelled, partly = [await world.ask() for _ in range(3)]
    await world.until(lambda: len(world.batches()) == 3)
    await world.paced.stop()
    ids = {name: agent.key.id for name, agent in world.agents.items()}
    references = {name: run_job.machine for name in NAMES if (run_job := stopped.jobs[ids[name]])}
    await world.ledger.append(RunStopped(stopped.uuid, "so it was decided"))
    await world.ledger.append(CancelRequested(cancelled.uuid, "j", "c", tuple(references.values())))
    await world.ledger.append(CancelRequested(partly.uuid, "j", "c", (references["c"], references["d"])))
    after = await restarted(world, make_world, *NAMES)
    for run in (stopped, cancelled, partly):
        after.end(run, "a", "b")
    await after.begun("e")
    after.end(partly, "e")
    ended = {"a": "completed", "b": "completed"}
    for run, rest in (
        (stopped, dict.fromkeys("cde", "not-started")),
        (cancelled, dict.fromkeys("cde", "cancelled")),
        (partly, {"c": "cancelled", "d": "cancelled", "e": "completed"}),
    ):
        await after.over(run.uuid)
        assert after.states(after.open(run.uuid)) == {**ended, **rest}
    assert after.open(stopped.uuid).stopped == "so it was decided"
    assert len(after.batches()) == 4


@pytest_twisted.ensureDeferred
async def test_a_run_that_had_not_begun_at_all_begins(world: PacedWorld, make_world: Callable[[], PacedWorld]) -> None:
    await world.paced.stop()
    before = await world.ask()
    await world.settled()
    assert world.batches() == []
    after = await restarted(world, make_world, *NAMES)
    await after.begun("a", "b")
    assert after.batches() == [("a", "b")]
    assert before.uuid == after.agents["a"].last(Start).uuid  # type: ignore[attr-defined]


@pytest_twisted.ensureDeferred
async def test_a_batch_that_is_being_recorded_is_sent_before_the_coordinator_stops(world: PacedWorld) -> None:
    run = await world.ask()
    assert world.sent() == [], "it is on its way to the disk"
    await world.paced.stop()
    assert world.sent() == ["a", "b"]
    world.end(run, "a", "b")
    await world.until(lambda: len(world.records(JobEnded)) == 2)
    await world.seconds(2)
    assert (world.batches(), world.sent()) == ([("a", "b")], ["a", "b"]), "no other is begun"
