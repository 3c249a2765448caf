"""``clusteragent status``: whether the agent runs here and is connected."""

from __future__ import annotations

from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..home import read_json, read_running
from ..wire.units import parse_duration
from .state import STATUS_FILE, AgentStatus, load_identity

_LOOK_S = 0.1


class Status(msgspec.Struct, frozen=True):
    """What ``status --json`` prints. *problem* says why it isn't connected."""

    machine: str
    coordinator: str
    running: bool
    connected: bool
    problem: str
    jobs: int
    pid: int | None


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``status``."""
    summary = "Say whether the agent runs here and is connected (exit status 0), or why not (1)."
    parser = Parser("clusteragent status", summary, ("clusteragent status", "clusteragent status --wait 60s"))
    parser.add_argument(
        "--wait", metavar="TIME", type=reads(parse_duration), default=0.0, help="so long, until it is connected"
    )
    options = parser.read(invocation, arguments)
    return lambda reactor: status(reactor, invocation, options.wait)


async def status(reactor: Any, invocation: Invocation, wait_s: float = 0.0) -> int:
    """Print how the agent is, after waiting at most *wait_s* seconds for its link."""
    from twisted.internet.task import deferLater

    deadline = reactor.seconds() + wait_s
    found = look(invocation)
    while not found.connected and reactor.seconds() < deadline:
        await deferLater(reactor, _LOOK_S)
        found = look(invocation)
    if invocation.json:
        await invocation.console.out(msgspec.json.encode(found) + b"\n")
    else:
        link = "connected" if found.connected else f"not connected: {found.problem}"
        await invocation.console.out(
            f"machine:     {found.machine}\n"
            f"coordinator: {found.coordinator}\n"
            f"link:        {link}\n"
            f"jobs:        {found.jobs} running\n"
        )
    return 0 if found.connected else 1


def look(invocation: Invocation) -> Status:
    """Return how the agent of this state directory is. Raises HomeError where it isn't enrolled."""
    folder = invocation.home / "agent"
    identity = load_identity(folder)
    running = read_running(folder)
    told = read_json(folder / STATUS_FILE, AgentStatus)
    if running is None:
        told = AgentStatus(0, "the agent does not run; start it with: clusteragent", 0)
    elif told is None or told.pid != running.pid:
        told = AgentStatus(running.pid, "the agent has only begun", 0)
    return Status(
        machine=identity.machine,
        coordinator=identity.coordinator,
        running=running is not None,
        connected=not told.problem,
        problem=told.problem,
        jobs=told.jobs,
        pid=None if running is None else running.pid,
    )
