"""Which jobs of a run are meant by the names of machines, those of then and those of now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from clustersh.coordinator.run_names import RunNames
from clustersh.trust.identity import Role
from clustersh.trust.keys import generate
from clustersh.wire.jobs import Command
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import RunRequest

from .world import JOSHUA, World

MakeWorld = Callable[[], World]


async def rename(world: World, key: str, name: str) -> None:
    public_key = generate().public_key()
    await world.registry.register(Role.AGENT, name, public_key, f"key of {key}", "192.0.2.1", "admin")


async def a_run(world: World, *, ended: bool) -> str:
    """Return a run on a, b and c; d is there too."""
    for name in "abcd":
        await world.join(name)
    agents = [await world.agent(name) for name in "abc"]
    uuid = await world.requests.take(JOSHUA, "key", RunRequest("a,b,c", Command(shell="true")))
    if ended:
        for agent in agents:
            agent.ended(uuid)
        await world.runs.settle(uuid, 10)
    return uuid


@pytest.fixture(params=["in memory", "in the index"])
def settled(request: pytest.FixtureRequest, make_world: MakeWorld) -> tuple[World, str]:
    """A world that knows of a run, in memory or from its index alone."""

    async def made() -> tuple[World, str]:
        world = make_world()
        uuid = await a_run(world, ended=request.param == "in the index")
        if request.param == "in the index":
            await world.stop()
            world = make_world()
            await world.load()
            assert world.runs.find(uuid) is None
        return world, uuid

    found: tuple[World, str] = pytest_twisted.blockon(Deferred.fromCoroutine(made()))
    return found


def names_of(world: World) -> RunNames:
    return RunNames(world.runs, world.index, world.registry, world.targets)


@pytest_twisted.ensureDeferred
async def test_a_renamed_machine_is_found_by_both_its_names(settled: tuple[World, str]) -> None:
    world, uuid = settled
    of_a = world.registry.machine("a").id
    await rename(world, "a", "anew")
    names = names_of(world)
    for name in ("a", "anew", "ANEW"):
        found, machine = await names.job(name, uuid[-12:] if world.runs.find(uuid) is None else uuid)
        assert (found, machine.id, machine.name) == (uuid, of_a, "a"), "the job has the name of then"
    for name in ("d", "nobody"):
        with pytest.raises(ProblemError) as caught:
            await names.job(name, uuid)
        assert caught.value.problem.kind is Kind.UNKNOWN_RUN and caught.value.problem.hint == "it was for a,b,c"


@pytest_twisted.ensureDeferred
async def test_the_name_of_then_comes_before_that_of_now(settled: tuple[World, str]) -> None:
    world, uuid = settled
    ids = {name: world.registry.machine(name).id for name in "ab"}
    await rename(world, "a", "anew")
    await rename(world, "b", "a")
    names = names_of(world)
    found = [(await names.job(name, uuid))[1].id for name in ("a", "b", "anew")]
    assert found == [ids["a"], ids["b"], ids["a"]]


@pytest_twisted.ensureDeferred
async def test_a_target_means_its_machines_of_now(settled: tuple[World, str]) -> None:
    world, uuid = settled
    ids = {name: world.registry.machine(name).id for name in "ab"}
    await rename(world, "a", "anew")
    await world.groups.add("web", tuple(world.registry.machine(name) for name in ("anew", "b", "d")), JOSHUA)
    names = names_of(world)
    assert await names.on(uuid, "@web") == {ids["a"], ids["b"]}
    assert await names.on(uuid, "an*") == {ids["a"]}
    assert {job.machine for job in (await world.views.run(uuid, 0, only=await names.on(uuid, "@web"))).jobs} == {
        "a",
        "b",
    }
    with pytest.raises(ProblemError) as caught:
        await names.on(uuid, "d,d")
    assert caught.value.problem.detail == f"{uuid} is none of d,d: no machine of it was asked to run that"
    assert caught.value.problem.hint == "it was for a,b,c"
    with pytest.raises(ProblemError) as caught:
        await names.on(uuid, "@wbe")
    assert caught.value.problem.kind is Kind.UNKNOWN_GROUP


@pytest_twisted.ensureDeferred
async def test_machines_are_left_out_of_a_target_and_of_all(settled: tuple[World, str]) -> None:
    world, uuid = settled
    ids = {name: world.registry.machine(name).id for name in "abc"}
    await world.groups.add("lab", tuple(world.registry.machine(name) for name in "ad"), JOSHUA)
    names = names_of(world)
    assert await names.on(uuid, "a,b,d", "@lab") == {ids["b"]}
    assert await names.on(uuid, "a", "b") == {ids["a"]}
    assert await names.on(uuid, "", "@lab") == {ids["b"], ids["c"]}
    await world.registry.forget("c")
    assert await names.on(uuid, "", "@lab") == {ids["b"], ids["c"]}, (
        "what is no machine any more was left out by nobody"
    )
    for target, exclude, detail in (
        ("", "@lab,b,c*", "no machine's name is like 'c*'"),
        ("", "aa", "no machine is called 'aa'"),
        ("b,d", "b", f"{uuid} is none of b,d without 'b': no machine of it was asked to run that"),
    ):
        with pytest.raises(ProblemError) as caught:
            await names.on(uuid, target, exclude)
        assert caught.value.problem.detail == detail and caught.value.problem.hint
