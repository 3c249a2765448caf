"""Every row of the guard's tables, asked for as any run is: of machines whose agents only note what they are sent.

Nothing here has a process, a shell or a link: what a `Start` holds is compared, and never carried out.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from clustersh.coordinator.records import RunRefused, RunRequested
from clustersh.wire.jobs import Command
from clustersh.wire.link import Facts, Hello, Start
from clustersh.wire.problems import Kind, Problem, ProblemError
from clustersh.wire.rest import RunRequest

from .guard.tables import BASH, POWERSHELL, Row
from .world import JOSHUA, Agent, World

TOGETHER = 200
"""Rows that are asked for at once: each is recorded, and what comes together is written together."""
MakeWorld = Callable[[], World]


async def noting(world: World, system: str) -> Agent:
    """Return the agent of ws1, a machine with that operating system, which notes what it is sent."""
    await world.load()
    await world.join("ws1")
    agent = Agent(world, "ws1")
    facts = Facts(platform=f"{system}/amd64")
    await world.fleet.hello(agent.link, Hello(version="1", instance="i", store="store-1", clock=1000.0, facts=facts))
    return agent


async def asked(world: World, agent: Agent, row: Row, key: str) -> Problem | None:
    """Ask for the row's command; return why it was refused. One that was sent has ended when this returns."""
    try:
        uuid = await world.requests.take(JOSHUA, key, RunRequest("ws1", Command(shell=row.command)))
    except ProblemError as error:
        return error.problem
    agent.ended(uuid)
    await world.runs.settle(uuid, 10)
    return None


@pytest.mark.parametrize(("system", "table"), [("linux", BASH), ("windows", POWERSHELL)], ids=["bash", "powershell"])
@pytest.mark.parametrize("harmful", [False, True], ids=["harmless", "harmful"])
@pytest_twisted.ensureDeferred
async def test_each_row_is_sent_once_or_refused_by_its_rule(
    make_world: MakeWorld, system: str, table: list[Row], harmful: bool
) -> None:
    world = make_world()
    agent = await noting(world, system)
    rows = [row for row in table if bool(row.rules) is harmful]
    problems: list[Problem | None] = []
    for first in range(0, len(rows), TOGETHER):
        batch = enumerate(rows[first : first + TOGETHER], first)
        taken = [Deferred.fromCoroutine(asked(world, agent, row, f"row {number}")) for number, row in batch]
        problems += await gatherResults(taken, consumeErrors=True)
    sent = [message.command.shell for message in agent.sent if isinstance(message, Start)]
    assert sorted(filter(None, sent)) == sorted(row.command for row in rows if not row.rules)
    assert len(sent) == len(world.records(RunRequested)) and len(world.records(RunRefused)) == len(rows) - len(sent)
    for row, problem in zip(rows, problems, strict=True):
        assert (problem is not None) is harmful, (row.command, problem)
        if problem is not None:
            rule = problem.detail.removeprefix("refused by policy: ").partition(": ")[0]
            assert (problem.kind, rule in row.rules) == (Kind.POLICY, True), (row.command, problem)
