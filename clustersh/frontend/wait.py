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
from .attend import Attendant, Manner, look_at
from .client import connect
from .identifiers import run_word
from .retry import Retry
from .run_arguments import wait_limit
from .show import Form


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
    options = parser.read(invocation, arguments)
    if options.full and options.limit is not None:
        raise UsageError("--full is without a limit: leave out --limit")
    uuid = run_word(options.uuid)
    wait_s = wait_limit(options.wait, invocation.environ)
    return lambda reactor: wait(reactor, invocation, uuid, options, wait_s)


async def wait(
    reactor: Any, invocation: Invocation, uuid: str, options: argparse.Namespace, wait_s: float | None
) -> int:
    """Wait for the run *uuid* and return its exit status."""
    retry = Retry(reactor, load(invocation.home).client.retry_for)
    client = await connect(reactor, invocation)

    limit = HEAD_LIMIT if options.limit is None else options.limit
    manner = Manner(
        Form(None if options.full else limit, combined=options.combined),
        live=options.full or options.follow,
        wait_s=wait_s,
    )

    async def look(within_s: float) -> Run:
        return await retry(lambda: look_at(client, uuid, within_s, manner.form))

    hint = f"ask again: clustersh wait {uuid}"
    return await Attendant(reactor, invocation, client, retry, look, manner, otherwise=hint).attend()
