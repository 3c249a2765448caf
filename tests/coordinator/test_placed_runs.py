"""Requests that leave it to the coordinator where they run, and plans: in memory, with a real ledger and index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from clustersh.coordinator import chosen, open_runs
from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request
from clustersh.coordinator.open_runs import OpenRun
from clustersh.coordinator.records import RunRefused, RunRequested
from clustersh.coordinator.rest_plans import PlanCalls
from clustersh.wire.fleet import Placement, Plan
from clustersh.wire.jobs import Command
from clustersh.wire.link import Vitals
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import RunRequest

from .world import JOSHUA, Agent, World

T = TypeVar("T")
NAMES = ("a", "b", "c", "d")
TRUE = Command(shell="true")
CALM = Vitals(20, 30, 40, 35)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


async def fill(world: World, *names: str) -> dict[str, Agent]:
    """Have machines of those names, used before and online, that say they are calm; new ones wait for their use."""
    world.targets.new_wait = True
    await world.load()
    agents = {}
    for name in names or NAMES:
        await world.join(name)
        agents[name] = await world.agent(name)
        key = world.registry.machine(name)
        world.registry.used(key.id)
        world.vitals[key.id] = (CALM, 5.0)
    return agents


def request(target: str = "all", *, pick: int = 1, raw: bool = True, **more: Any) -> RunRequest:
    return RunRequest(target, TRUE, placement=Placement(pick=pick, raw=raw), **more)


async def take(world: World, key: str, asked: RunRequest) -> OpenRun:
    run = world.runs.find(await world.requests.take(JOSHUA, key, asked))
    assert run is not None
    return run


def names(run: OpenRun) -> list[str]:
    return [job.machine.name for job in run.jobs.values()]


@pytest_twisted.ensureDeferred
async def test_the_choice_is_frozen_in_the_record_and_the_same_key_again_is_the_same_run(world: World) -> None:
    await fill(world)
    world.vitals[world.registry.machine("c").id] = (Vitals(0, 0, 0, 0), 5.0)
    run = await take(world, "k", request())
    (record,) = cast(list[RunRequested], world.records(RunRequested))
    assert names(run) == ["c"] == [machine.name for machine in record.machines]
    assert record.selected == run.selected == (await world.views.run(run.uuid, 0)).selected
    assert record.selected[0].startswith("Selected c: score 0.00; cpu 0% (group 15%)")
    world.vitals[world.registry.machine("c").id] = (Vitals(100, 100, 100, 100), 5.0)
    again = await take(world, "k", request())
    assert (again.uuid, again.selected) == (run.uuid, run.selected)
    assert len(world.records(RunRequested)) == 1


@pytest_twisted.ensureDeferred
async def test_twenty_requests_in_one_moment_spread_evenly(world: World) -> None:
    await fill(world)
    requests = [Deferred.fromCoroutine(take(world, f"k{n}", request())) for n in range(20)]
    runs = await gatherResults(requests)
    assert Counter(name for run in runs for name in names(run)) == dict.fromkeys(NAMES, 5)


@pytest_twisted.ensureDeferred
async def test_a_job_that_ended_counts_no_more(world: World) -> None:
    agents = await fill(world, "a", "b")
    world.vitals[world.registry.machine("b").id] = (Vitals(25, 30, 40, 35), 5.0)
    for n in range(5):  # each placed job counts 0.4 here, and b is 0.02 worse
        run = await take(world, f"k{n}", request())
        assert names(run) == ["a"]
        agents["a"].started(run.uuid)
        agents["a"].ended(run.uuid)
        await world.over(run.uuid)


@pytest_twisted.ensureDeferred
async def test_a_run_that_was_refused_after_it_was_placed_counts_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world, "a", "b")

    async def missing(*blobs: str) -> frozenset[str]:
        raise ProblemError(Kind.UNKNOWN_BLOB, "no such blob")

    async def refused(key: str, command: Command, kind: Kind) -> None:
        with pytest.raises(ProblemError) as caught:
            await take(world, key, msgspec.structs.replace(request(), command=command))
        assert caught.value.problem.kind is kind

    await refused("by the policy", Command(shell="mkfs.ext4 /dev/sda"), Kind.POLICY)
    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "hold", missing)
        await refused("not recorded", TRUE, Kind.UNKNOWN_BLOB)
    with monkeypatch.context() as patched:
        patched.setattr(open_runs, "MAX_OPEN_EACH", 0)
        await refused("too many", TRUE, Kind.RATE_LIMITED)
    with monkeypatch.context() as patched:
        patched.setattr(chosen, "MAX_SENT", 0)
        await refused("too large", TRUE, Kind.TOO_LARGE)
    first = await take(world, "first", request())
    assert names(first) == ["a"] and "just placed" not in first.selected[0]
    await refused("another", Command(shell="mkfs.ext4 /dev/sda"), Kind.POLICY)
    second = await take(world, "second", request())
    assert names(second) == ["b"] and "just placed" not in second.selected[0]
    assert not world.placer._making


@pytest_twisted.ensureDeferred
async def test_jobs_that_the_coordinator_sees_running_count_whoever_named_the_machine(world: World) -> None:
    await fill(world, "a", "b")
    for n in range(3):
        await take(world, f"named-{n}", RunRequest("a", TRUE))
    run = await take(world, "k", request())
    assert names(run) == ["b"]
    assert "it says 20% but has" not in run.selected[0]
    both = await take(world, "k2", request(pick=2, raw=False))
    assert "Selected a: score" in both.selected[1]
    assert "it says 20% but has 3 jobs" in both.selected[1]


@pytest_twisted.ensureDeferred
async def test_too_few_machines_are_a_recorded_refusal_that_says_how_many_there_are(world: World) -> None:
    agents = await fill(world)
    agents["d"].go()
    world.clock.advance(10)
    for _ in range(2):
        with pytest.raises(
            ProblemError, match=r"4 machines asked for, .* 4 only 3 can be chosen \(1 offline\)"
        ) as caught:
            await take(world, "k", request(pick=4, raw=False))
        assert (caught.value.problem.kind, caught.value.problem.started) == (Kind.EMPTY_TARGET, False)
    assert len(world.records(RunRefused)) == 1


@pytest_twisted.ensureDeferred
async def test_a_new_machine_is_chosen_only_where_it_was_named(world: World) -> None:
    await fill(world, "a")
    await world.join("fresh")
    await world.agent("fresh")
    world.vitals[world.registry.machine("fresh").id] = (Vitals(0, 0, 0, 0), 1.0)
    assert names(await take(world, "k1", request("all"))) == ["a"]
    assert names(await take(world, "k2", request("a,fresh"))) == ["fresh"]
    assert not world.registry.machine("fresh").new


@pytest_twisted.ensureDeferred
async def test_a_new_machine_is_not_chosen_of_all_that_are_new_unless_new_ones_are_used(world: World) -> None:
    await fill(world, "a")
    await world.join("fresh")
    await world.agent("fresh")
    with pytest.raises(ProblemError, match=r"none can be chosen \(1 new\)"):
        await take(world, "k1", request("@new"))
    world.targets.new_wait = False
    assert names(await take(world, "k2", request("all", pick=2, raw=False))) == ["a", "fresh"]


# -- plans


class Waiting:
    """As much of an HTTP request as a plan needs: nobody hangs up."""

    async def unless_gone(self, work: Awaitable[T]) -> T:
        return await work


async def plan(world: World, asked: RunRequest) -> Plan:
    calls = PlanCalls(world.requests, world.fleet, world.policy, world.table)
    return await calls.plan(cast(Request, Waiting()), Caller(JOSHUA, "", ""), asked)


@pytest_twisted.ensureDeferred
async def test_a_plan_touches_nothing(world: World) -> None:
    await fill(world)
    await world.join("fresh")
    agent = await world.agent("fresh")
    before = list(world.ledger.read())
    for asked in (request(), RunRequest("fresh", TRUE), RunRequest("nobody", TRUE)):
        await plan(world, asked)
    assert list(world.ledger.read()) == before
    assert len(world.table) == 0
    assert agent.sent == agent.sent[:1]  # its welcome
    assert world.registry.machine("fresh").new
    # What was planned is not counted as placed: the first one still comes first.
    assert (await plan(world, request())).selected[0].startswith("Selected a: score 0.29; cpu")


@pytest_twisted.ensureDeferred
async def test_a_plan_says_what_would_run_and_where(world: World) -> None:
    agents = await fill(world)
    agents["b"].go()
    world.clock.advance(10)
    asked = RunRequest(
        "a,b", TRUE, cwd="/srv", env={"B": "secret", "A": "1"}, timeout_s=60, idle_timeout_s=7, stdin=True
    )
    found = await plan(world, asked)
    assert not found.would_start
    assert [(machine.name, machine.status, machine.batch) for machine in found.machines] == [
        ("a", "online", 1),
        ("b", "offline", 1),
    ]
    assert all(machine.last_seen for machine in found.machines)
    assert (found.command, found.cwd, found.env, found.timeout_s, found.idle_timeout_s, found.stdin) == (
        *(TRUE, "/srv", ("A", "B"), 60, 7, True),
    )
    skipping = await plan(world, RunRequest("a,b", TRUE, skip_offline=True))
    assert skipping.would_start
    assert skipping.skipped == ("b",)


@pytest_twisted.ensureDeferred
async def test_a_plan_has_the_problem_that_a_run_would_be_refused_for(world: World) -> None:
    await fill(world)
    for asked, kind in (
        (RunRequest("nobody", TRUE), Kind.UNKNOWN_MACHINE),
        (request(pick=9, raw=False), Kind.EMPTY_TARGET),
        (RunRequest("all", TRUE, placement=Placement("nonsense")), Kind.BAD_REQUEST),
    ):
        found = await plan(world, asked)
        assert found.problem is not None
        assert (found.problem.kind, found.would_start, found.machines) == (kind, False, ())


@pytest_twisted.ensureDeferred
async def test_a_plan_says_that_a_run_would_be_too_large(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "MAX_SENT", 100)
    await fill(world, "a", "b")
    found = await plan(world, RunRequest("a,b", TRUE, env={"A": "x" * 60}))
    assert not found.would_start and found.problem is not None and found.problem.kind is Kind.TOO_LARGE


@pytest_twisted.ensureDeferred
async def test_a_plan_waits_for_machines_that_are_expected_back(world: World) -> None:
    await fill(world, "a")
    await world.join("late")
    world.fleet.expected.add(world.registry.machine("late").id)
    waiting = Deferred.fromCoroutine(plan(world, RunRequest("a,late", TRUE)))
    assert not waiting.called
    await world.agent("late")
    found = await waiting
    assert found.would_start
