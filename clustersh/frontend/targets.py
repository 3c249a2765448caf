"""``clustersh targets``: which machines an expression means now."""

from __future__ import annotations

from typing import Any

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude
from ..cli.tables import render_table
from ..cli.target_words import machines, show, target_query
from ..cli.text import printable
from ..wire.fleet import TargetView
from . import left_out
from .client import connect

EXAMPLES = (
    "clustersh targets web[01-10]",
    "clustersh targets '@web!web03'",
    "clustersh targets @os:linux -x @rack7",
    "clustersh targets all -x @offline --json",
)


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``targets``."""
    parser = Parser("clustersh targets", "Show which machines a target means now.", EXAMPLES)
    parser.add_argument("target", nargs="+", metavar="EXPR", help="names, @groups, ranges and patterns")
    add_exclude(parser)
    options = parser.read(invocation, arguments)
    return lambda reactor: targets(reactor, invocation, ",".join(options.target), options.exclude)


async def targets(reactor: Any, invocation: Invocation, target: str, exclude: str) -> int:
    """Print the machines, and on stderr all of them in short."""
    query = target_query(target, exclude)
    client = await connect(reactor, invocation)
    view = await client.call("GET", "/v1/targets", answer=TargetView, query=query)
    console = invocation.console
    offline, unreachable, new = set(view.offline), set(view.unreachable), set(view.new)
    rows = [(name, _status(name in offline, name in unreachable, name in new)) for name in view.machines]
    await show(invocation, view, render_table(("name", "status"), rows, console.width))
    if not invocation.json:
        new_ones = f", {left_out.words(view.left_out)}" if view.left_out else ""
        all_of_them = f"{printable(view.folded)}: {machines(len(view.machines))}, {view.online} online"
        await console.err(f"{all_of_them}{new_ones}\n")
        if view.left_out:
            await console.hint(left_out.hint(view.left_out))
    return 0


def _status(offline: bool, unreachable: bool, new: bool) -> str:
    status = "unreachable" if unreachable else "offline" if offline else "online"
    return f"{status} (new)" if new else status
