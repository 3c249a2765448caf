"""Pieces of stdin that nobody waits for any more."""

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
from clustersh.trust.identity import Role

from .conftest import Front
from .test_runs import JOSHUA, TRUE, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world")
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@pytest_twisted.ensureDeferred
async def test_a_piece_of_stdin_is_withdrawn_when_its_sender_leaves(front: Front, world: World) -> None:
    outputs = Outputs(world.fleet, lambda: 0.0)
    names = RunNames(world.runs, world.index, world.registry, world.targets)
    JobCalls(world.runs, world.views, names, world.index, world.registry, world.targets, outputs).add_to(front.api)
    await world.join("ws1")
    agent = await world.agent()
    uuid = await world.requests.take(JOSHUA, "key", TRUE)
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"PUT /v1/jobs/ws1/%s/stdin HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" % uuid.encode())
    while not agent.link.feeding:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    wire.cut()
    await wire.closed
    while agent.link.feeding:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert agent.link.questions == {}
