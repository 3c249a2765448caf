"""Two agents with one key: who serves the machine."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.task import Clock

from clustersh.coordinator.fleet import Fleet
from clustersh.coordinator.instances import KEPT, Instances
from clustersh.coordinator.links import Link
from clustersh.coordinator.registry import Key
from clustersh.trust.identity import Role
from clustersh.wire.link import Hello, Welcome, Witness

KEY = Key("f" * 64, Role.AGENT, "ws1", "id-1", "192.0.2.1", "2026-01-01T00:00:00Z")


class Events:
    async def linking(self, machine, hello, epoch):
        return Welcome(epoch, machine.name, (), Witness(1, ""))


class Agent:
    def __init__(self, fleet: Fleet, instance: str) -> None:
        self.fleet = fleet
        self.instance = instance

    async def come(self) -> bool:
        """Link up; return whether this one serves the machine now."""
        self.sent, self.closed = [], []
        self.link = Link(KEY, "192.0.2.1", self.sent.append, self.closed.append)
        await self.fleet.hello(self.link, Hello(version="1", instance=self.instance, store="s", clock=1.0))
        return bool(self.sent)

    def go(self) -> None:
        self.fleet.closed(self.link)


def fleet() -> Fleet:
    made = Fleet(Clock(), lambda: 1.0, lambda: 1000.0)
    made.events = Events()
    return made


@pytest_twisted.ensureDeferred
async def test_the_newer_of_two_agents_keeps_the_machine_until_it_goes():
    shared = fleet()
    first, second = Agent(shared, "a"), Agent(shared, "b")
    assert await first.come()
    assert await second.come()
    assert first.closed == ["another agent with this key has come"] and first.link.replaced
    first.go()
    assert shared.online == {"id-1"}
    for _ in range(3):
        assert not await first.come()
        assert first.closed and first.link.replaced
        first.go()
    assert second.closed == [] and shared.online == {"id-1"}
    second.go()
    assert await first.come()
    # The newer one was only away for a moment.
    assert await second.come()
    assert first.link.replaced and not second.link.replaced


@pytest_twisted.ensureDeferred
async def test_an_agent_that_comes_again_replaces_its_own_link_as_ever():
    shared = fleet()
    agent = Agent(shared, "a")
    assert await agent.come()
    stale = agent.link
    closed = agent.closed
    assert await agent.come()
    assert closed == ["another link of this machine has come"] and not stale.replaced


def test_a_machine_that_restarts_for_ever_is_remembered_in_bounded_space():
    instances = Instances()
    for number in range(100 * KEPT):
        instances.note("id-1", str(number))
    assert [len(seen) for seen in instances._seen.values()] == [KEPT]
    assert not instances.is_older("id-1", str(100 * KEPT - 1), "0")
    assert instances.is_older("id-1", str(100 * KEPT - 2), str(100 * KEPT - 1))
