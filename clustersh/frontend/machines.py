"""``clustersh machines``: who is there, and how they do."""

from __future__ import annotations

from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude
from ..cli.tables import render_table
from ..cli.target_words import target_query
from ..rest_client import Query
from ..wire.rest import Machine, Machines
from . import health
from .client import connect
from .machine_status import status


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``machines``."""
    examples = ("clustersh machines", "clustersh machines -l @web -x web03", "clustersh machines --watch")
    parser = Parser("clustersh machines", "List the machines and whether they are online.", examples)
    parser.add_argument("target", nargs="?", default="", metavar="TARGET", help="only these: ws1, web[01-10], @group")
    add_exclude(parser)
    parser.add_argument("-l", "--long", action="store_true", help="how they do: load, memory, disks, latency, version")
    parser.add_argument("--watch", action="store_true", help="that, again and again, until Ctrl-C")
    options = parser.read(invocation, arguments)
    query = target_query(options.target, options.exclude) if options.target or options.exclude else []
    if options.watch:
        return lambda reactor: watch(reactor, invocation, [*query, ("fresh", "true")])
    if options.long:
        return lambda reactor: machines(reactor, invocation, [*query, ("fresh", "true")], long=True)
    return lambda reactor: machines(reactor, invocation, query)


async def machines(reactor: Any, invocation: Invocation, query: Query, *, long: bool = False) -> int:
    """Print the table."""
    client = await connect(reactor, invocation)
    found = await client.call("GET", "/v1/machines", answer=Machines, query=query)
    await invocation.console.out(_written(invocation, found, long=long))
    if not found.machines and not invocation.json:
        await invocation.console.hint("no machine has joined yet; on one: clusteragent enroll http://COORDINATOR:5672")
    return 0


async def watch(reactor: Any, invocation: Invocation, query: Query) -> int:
    """Print the health table until a signal comes."""
    from .health_watch import Live

    client = await connect(reactor, invocation)
    live = Live(
        reactor,
        invocation,
        fetch=lambda: client.call("GET", "/v1/machines", answer=Machines, query=query),
        render=lambda found: _written(invocation, found, long=True),
    )
    return await live.run()


def _written(invocation: Invocation, found: Machines, *, long: bool) -> str:
    now, width = invocation.now(), invocation.console.width
    if invocation.json:
        return msgspec.json.encode(found).decode() + "\n"
    if long:
        return health.render(found.machines, now, width)
    return render_table(("name", "platform", "status"), [_row(machine, now) for machine in found.machines], width)


def _row(machine: Machine, now: float) -> tuple[str, str, str]:
    return machine.name, machine.platform, status(machine, now)
