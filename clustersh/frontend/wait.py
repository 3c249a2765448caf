"""``clustersh wait``: stay until a run ended, then show what ``run`` would have shown."""

from __future__ import annotations

import argparse
from typing import Any

from ..cli.commands import Start
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..config import load
from ..wire import units
from ..wire.jobs import HEAD_LIMIT
from ..wire.rest import Run
from .attend import Attendant, Manner, Showing, look_at
from .client import connect
from .fleet_arguments import add_layout, check_many, chosen_layout
from .identifiers import run_word
from .layouts import Layout
from .retry import Retry
from .run_arguments import wait_limit
from .show import Form
from .showing import is_one, showing


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``wait``."""
    examples = ("clustersh wait c41f9a02", "clustersh wait c41f9a02 --wait 90s")
    parser = Parser("clustersh wait", "Wait for a run's end; print its output, end with its exit status.", examples)
    parser.add_argument("uuid", metavar="UUID", help="the run, or 8 or more digits from its end")
    duration, size = reads(units.parse_duration), reads(units.parse_size)
    parser.add_argument("--wait", type=duration, metavar="TIME", help="give up waiting after it (CLUSTERSH_WAIT)")
    parser.add_argument("--follow", action="store_true", help="print the output as it comes")
    parser.add_argument("--full", action="store_true", help="no limit: stream all the output")
    parser.add_argument("--limit", type=size, metavar="SIZE", help="bytes of output to show (128KiB)")
    parser.add_argument("--combined", action="store_true", help="both streams as one, in the order they came")
    add_layout(parser, "how many machines' output is shown: as run has it")
    options = parser.read(invocation, arguments)
    layout = chosen_layout(invocation, options) or Layout.FOLDED
    if options.full and options.limit is not None:
        raise UsageError("--full is without a limit: leave out --limit")
    uuid = run_word(options.uuid)
    limit = HEAD_LIMIT if options.limit is None else options.limit
    manner = Manner(
        Form(None if options.full else limit, combined=options.combined),
        follow=options.follow,
        wait_s=wait_limit(options.wait, invocation.environ),
        layout=layout,
    )
    return lambda reactor: wait(reactor, invocation, uuid, manner, options)


async def wait(reactor: Any, invocation: Invocation, uuid: str, manner: Manner, options: argparse.Namespace) -> int:
    """Wait for the run *uuid* and return its exit status; *options* are checked once its form is known."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)

    async def look(within_s: float) -> Run:
        return await retry(lambda: look_at(client, uuid, within_s, manner.form, manner.layout))

    def show(attendant: Attendant, run: Run) -> Showing:
        if not is_one(run):
            check_many(options, manner.layout)
        return showing(attendant, run)

    hint = f"ask again: clustersh wait {uuid}"
    return await Attendant(reactor, invocation, client, retry, look, manner, show, otherwise=hint).attend()
