"""``clustersh machines``: who is there."""

from __future__ import annotations

from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..wire.rest import Machine, Machines
from ..wire.units import format_duration, parse_timestamp
from .client import connect


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``machines``."""
    examples = ("clustersh machines", "clustersh machines --json")
    parser = Parser("clustersh machines", "List the machines and whether they are online.", examples)
    parser.read(invocation, arguments)
    return lambda reactor: machines(reactor, invocation)


async def machines(reactor: Any, invocation: Invocation) -> int:
    """Print the table."""
    client = await connect(reactor, invocation)
    found = await client.call("GET", "/v1/machines", answer=Machines)
    console = invocation.console
    if invocation.json:
        await console.out(msgspec.json.encode(found) + b"\n")
        return 0
    rows = [(machine.name, machine.platform, status(machine, invocation.now())) for machine in found.machines]
    await console.out(render_table(("name", "platform", "status"), rows, console.width))
    if not rows:
        await console.hint("no machine has joined yet; on one: clusteragent enroll http://COORDINATOR:5672")
    return 0


def status(machine: Machine, now: float) -> str:
    """Return the machine's status as tables say it: ``offline (last seen 2h ago)``."""
    notes = []
    if machine.status != "online":
        notes.append("never seen" if machine.last_seen is None else f"last seen {_ago(machine.last_seen, now)}")
    if machine.new:
        notes.append("new")
    return f"{machine.status} ({', '.join(notes)})" if notes else machine.status


def _ago(when: str, now: float) -> str:
    seconds = max(0.0, now - parse_timestamp(when))
    for unit in (86400, 3600, 60, 1):
        if seconds >= unit:
            return f"{format_duration(seconds // unit * unit)} ago"
    return "just now"
