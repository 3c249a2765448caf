"""Pieces of stdin: whose they are, and those that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from clustersh.coordinator.outputs import Outputs
from clustersh.coordinator.rest_jobs import JobCalls
from clustersh.coordinator.run_names import RunNames
from clustersh.trust.identity import Identity, Role
from clustersh.wire.link import Stdin

from .conftest import Front
from .world import JOSHUA, TRUE, Agent, World

CALLER = Identity(Role.FRONTEND, "ann@box", f"id-{Role.FRONTEND}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world")
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


async def serve(front: Front, world: World) -> Agent:
    outputs = Outputs(world.fleet, lambda: 0.0)
    names = RunNames(world.runs, world.index, world.registry, world.targets)
    JobCalls(world.runs, world.views, names, world.index, world.registry, world.targets, outputs).add_to(front.api)
    await world.join("ws1")
    return await world.agent()


@pytest_twisted.ensureDeferred
async def test_what_another_client_asked_for_is_not_fed(front: Front, world: World) -> None:
    agent = await serve(front, world)
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    for role in (Role.FRONTEND, Role.ADMIN):
        reply = await front.call("PUT", f"/v1/jobs/ws1/{uuid}/stdin", role, data=b"rm -rf /", timeout=20)
        assert (reply.status, reply.problem) == (403, "policy")
        assert "only joshua@mba feeds that run" in reply.json["detail"]
    assert agent.count(Stdin) == 0 and agent.link.questions == {}


@pytest_twisted.ensureDeferred
async def test_a_piece_of_stdin_is_withdrawn_when_its_sender_leaves(front: Front, world: World) -> None:
    agent = await serve(front, world)
    uuid = await world.requests.take(CALLER, "key", TRUE)
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"PUT /v1/jobs/ws1/%s/stdin HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" % uuid.encode())
    while not agent.link.feeding:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    wire.cut()
    await wire.closed
    while agent.link.feeding:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert agent.link.questions == {}
