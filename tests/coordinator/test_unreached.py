"""A machine whose gateway's agent is there but doesn't reach it: it is unreachable, and left out as what is offline."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request
from clustersh.coordinator.links import MAX_UNREACHED
from clustersh.coordinator.rest_plans import PlanCalls
from clustersh.wire.fleet import Placement, PlannedMachine
from clustersh.wire.jobs import Command
from clustersh.wire.link import Hello, Start, Vitals
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import RunRequest
from clustersh.wire.units import timestamp

from .world import JOSHUA, Agent, World

ensure = pytest_twisted.ensureDeferred
T = TypeVar("T")
TRUE = Command(shell="true")
WHY = "ssh nas: nothing listens on nas port 22"


class Place:
    """A coordinator with ws1 and nas online."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nas: Agent
        self.ws1: Agent

    async def fill(self) -> Place:
        await self.world.load()
        for name in ("nas", "ws1"):
            await self.world.join(name)
            setattr(self, name, await self.world.agent(name))
            self.world.vitals[self.world.registry.machine(name).id] = (Vitals(20, 30, 40, 35), 5.0)
        return self

    @property
    def status(self) -> str:
        return self.world.fleet.status(self.nas.key.id)

    @property
    def last_seen(self) -> float:
        return self.world.fleet.seen[self.nas.key.id].at - self.world.now()

    def meant(self, target: str) -> str:
        return " ".join(machine.name for machine in self.world.targets.resolve(target).machines)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    world = World(tmp_path)
    yield pytest_twisted.blockon(Deferred.fromCoroutine(Place(world).fill()))
    pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


@ensure
async def test_it_is_not_online_until_it_is_reached_again(place: Place) -> None:
    assert (place.status, place.meant("@online")) == ("online", "nas ws1")
    place.nas.pulse(WHY)
    assert (place.status, place.world.fleet.unreached(place.nas.key.id)) == ("unreachable", WHY)
    assert (place.meant("@online"), place.meant("@offline")) == ("ws1", "nas")
    place.nas.pulse()
    assert (place.status, place.meant("@online")) == ("online", "nas ws1")
    assert place.world.fleet.unreached(place.nas.key.id) is None
    place.nas.pulse("x" * 4096)
    assert place.world.fleet.unreached(place.nas.key.id) == "x" * MAX_UNREACHED
    place.nas.go()
    place.world.clock.advance(10)
    assert (place.status, place.world.fleet.unreached(place.nas.key.id)) == ("offline", None), (
        "nor is its gateway there"
    )


@ensure
async def test_nobody_has_seen_it_while_it_is_not_reached(place: Place) -> None:
    place.nas.pulse()
    place.world.clock.advance(100)
    place.nas.pulse(WHY)
    assert place.last_seen == -100
    place.nas.go()
    assert place.last_seen == -100
    again = Agent(place.world, "nas")
    await place.world.fleet.hello(again.link, Hello("1", "i", "store-1", 1100.0, unreached=WHY))
    assert (place.status, place.last_seen) == ("unreachable", -100), "its gateway's link says so when it comes"
    again.pulse()
    assert (place.status, place.last_seen) == ("online", 0)


@ensure
async def test_a_run_that_names_it_is_tried(place: Place) -> None:
    place.nas.pulse(WHY)
    await place.world.requests.take(JOSHUA, "key", RunRequest("nas", TRUE))
    assert place.nas.count(Start) == 1, "it may be back, and its gateway says what is wrong"


@ensure
async def test_it_is_left_out_as_what_is_offline(place: Place) -> None:
    place.nas.pulse(WHY)
    uuid = await place.world.requests.take(JOSHUA, "key", RunRequest("all", TRUE, skip_offline=True))
    run = await place.world.views.run(uuid, 0)
    assert ([job.machine for job in run.jobs], run.skipped) == (["ws1"], ("nas",))
    await place.world.requests.take(JOSHUA, "placed", RunRequest("all", TRUE, placement=Placement(raw=True)))
    assert (place.nas.count(Start), place.ws1.count(Start)) == (0, 2)
    with pytest.raises(ProblemError, match="only 1 can be chosen") as caught:
        await place.world.requests.take(JOSHUA, "two", RunRequest("all", TRUE, placement=Placement(pick=2)))
    assert caught.value.problem.kind is Kind.EMPTY_TARGET


class Waiting:
    """As much of an HTTP request as a plan needs: nobody hangs up."""

    async def unless_gone(self, work: Awaitable[T]) -> T:
        return await work


@ensure
async def test_a_plan_says_why(place: Place) -> None:
    calls = PlanCalls(place.world.requests, place.world.fleet, place.world.policy)

    async def plan(**how: Any) -> Any:
        return await calls.plan(cast(Request, Waiting()), Caller(JOSHUA, "", ""), RunRequest("all", TRUE, **how))

    assert (await plan()).would_start
    place.nas.pulse(WHY)
    found = await plan()
    assert not found.would_start
    seen = timestamp(place.world.now())
    assert found.machines[0] == PlannedMachine("nas", "unreachable", last_seen=seen, unreached=WHY)
    assert (await plan(skip_offline=True)).would_start
