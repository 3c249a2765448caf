"""``clustersh history``: what was run, newest first, from the coordinator's records."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude, reads
from ..cli.tables import render_table
from ..cli.target_words import restricted_query
from ..rest_client import Query, RestClient
from ..wire import units
from ..wire.fleet import is_plain
from ..wire.ids import short
from ..wire.jobs import State
from ..wire.rest import Job, JobPage
from .client import connect
from .many.names import node_set
from .many.summary import counts
from .outcome import status_words

DEFAULT_LIMIT = 20
PAGE = 500


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``history``."""
    examples = (
        "clustersh history ws1",
        "clustersh history @web --status failed",
        "clustersh history all -x @lab --status failed --since 2h",
        "clustersh history --client me@laptop --limit 100 --json",
    )
    parser = Parser("clustersh history", "List what was run, newest first.", examples)
    parser.add_argument("target", nargs="?", default="", metavar="TARGET", help="only there: a machine, @group, ...")
    add_exclude(parser)
    parser.add_argument("--limit", type=reads(_count), default=DEFAULT_LIMIT, metavar="N", help="at most N runs (20)")
    states = ", ".join(state.value for state in State)
    parser.add_argument("--status", action="append", default=[], type=reads(_state), metavar="STATUS", help=states)
    parser.add_argument("--client", default="", metavar="NAME", help="only what this client asked for")
    parser.add_argument("--since", metavar="TIME", help="only since then: 2h, 3d, 2026-11-20, 2026-11-20T10:31")
    options = parser.read(invocation, arguments)
    target, exclude = options.target.strip(), options.exclude.strip()
    # A plain name is also that of a machine which is forgotten by now.
    plain = is_plain(target, exclude)
    query = [("machine", target)] if plain else [*restricted_query(target, exclude)]
    if options.client:
        query.append(("client", options.client))
    query += [("status", state) for state in sorted({state for states in options.status for state in states})]
    if options.since:
        query.append(("since", units.timestamp(_moment(options.since, invocation.now()))))
    return lambda reactor: history(reactor, invocation, query, options.limit)


async def history(reactor: Any, invocation: Invocation, query: Query, limit: int) -> int:
    """Print the jobs that *query* selects, of at most *limit* runs."""
    client = await connect(reactor, invocation)
    page = await _pages(client, query, limit)
    console = invocation.console
    if invocation.json:
        await console.out(msgspec.json.encode(page) + b"\n")
        return 0
    headers = ["uuid", "time", "command", "status"]
    everywhere = not any(name == "machine" for name, _ in query)
    rows = [_row(jobs, invocation.now(), everywhere) for jobs in by_run(page.jobs)]
    if everywhere:
        headers.append("machine")
    await console.out(render_table(headers, rows, console.width))
    return 0


async def _pages(client: RestClient, query: Query, limit: int) -> JobPage:
    """Return the jobs of *limit* runs; the coordinator tears none of them into two pages."""
    jobs: list[Job] = []
    left, before = limit, None
    while left:
        paging = [("limit", str(min(left, PAGE)))] + ([("before", before)] if before is not None else [])
        page = await client.call("GET", "/v1/jobs", answer=JobPage, query=[*query, *paging])
        jobs += page.jobs
        before = page.next
        left = limit - len({job.uuid for job in jobs})
        if before is None or not page.jobs:
            break
    return JobPage(tuple(jobs), before)


def by_run(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return *jobs*, which are in the order of their runs, a list for each run."""
    return [list(alike) for _, alike in itertools.groupby(jobs, lambda job: job.uuid)]


def _row(jobs: list[Job], now: float, everywhere: bool) -> list[str]:
    first = jobs[0]
    when = datetime.fromtimestamp(units.parse_timestamp(first.requested))
    status = status_words(first, now) if len(jobs) == 1 else counts(jobs)
    where = [node_set([job.machine for job in jobs])] if everywhere else []
    return [short(first.uuid), f"{when:%Y-%m-%d %H:%M:%S}", first.command, status, *where]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise ValueError(f"{text!r} is no number of runs: 1 to 1000000")
    return int(text)


def _state(text: str) -> tuple[str, ...]:
    """Return the states that *text* means: what an agent's restart interrupted has failed, too."""
    try:
        state = State(text.strip().lower().replace(" ", "-"))
    except ValueError:
        raise ValueError(f"{text!r} is no status: use {', '.join(state.value for state in State)}") from None
    if state is State.FAILED:
        return (State.FAILED.value, State.INTERRUPTED.value)
    return (state.value,)


def _moment(text: str, now: float) -> float:
    try:
        return now - units.parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"--since {text}: write it like 2h, 3d, 2026-11-20 or 2026-11-20T10:31") from None
