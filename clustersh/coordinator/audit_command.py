"""``clusterd audit``: the ledger, a line a record, or as it is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.errors import CliError, UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..rest_client import RestClient
from ..wire.rest import AuditPage, Verified
from ..wire.units import parse_duration, parse_timestamp, timestamp
from .admin_client import ask
from .audit_text import describe
from .records import read_envelope, read_record

BROKEN = 1
"""Exit status of ``audit verify`` where the ledger was changed."""
_HEADERS = ("seq", "time", "what", "who", "where", "details")


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``audit``."""
    examples = (
        "clusterd audit --since 2h",
        "clusterd audit --client joshua@mba --machine joshua-ws1",
        "clusterd audit verify",
        "clusterd audit verify --witness",
    )
    parser = Parser("clusterd audit", "Who ran what, where, when, and how it ended.", examples)
    parser.add_argument("action", nargs="?", choices=("verify",), help="check that no record was changed or removed")
    parser.add_argument("--client", metavar="NAME", default="", help="only what this user did")
    parser.add_argument("--machine", metavar="NAME", default="", help="only what is about this machine")
    parser.add_argument("--since", metavar="WHEN", default="", help="a time (2026-11-20T10:31:07Z) or an age (2h, 7d)")
    parser.add_argument("--witness", action="store_true", help="verify: compare with what the machines hold of it")
    options = parser.read(invocation, arguments)
    if options.action == "verify":
        return lambda reactor: verify(reactor, invocation, witness=options.witness)
    if options.witness:
        raise UsageError("--witness goes with verify: clusterd audit verify --witness")
    since = since_when(options.since, invocation.now()) if options.since else ""
    query = [("client", options.client), ("machine", options.machine), ("since", since)]
    given = [(name, value) for name, value in query if value]
    return lambda reactor: audit(reactor, invocation, given)


def since_when(text: str, now: float) -> str:
    """Return the time that *text*, a time or an age, means, in RFC 3339. Raises UsageError."""
    with contextlib.suppress(ValueError):
        return timestamp(now - parse_duration(text))
    try:
        return timestamp(parse_timestamp(text))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--since: {text!r} is no time: write it like 2026-11-20T10:31:07Z, 2h or 7d") from error


async def audit(reactor: Any, invocation: Invocation, query: list[tuple[str, str]]) -> int:
    """Print every record that fits, oldest first."""
    records: list[msgspec.Raw] = []

    async def read(client: RestClient) -> None:
        async for page in _pages(client, query):
            records.extend(page.records)

    await ask(reactor, invocation, read)
    console = invocation.console
    if invocation.json:
        await console.out(msgspec.json.encode(AuditPage(tuple(records))) + b"\n")
        return 0
    await console.out(render_table(_HEADERS, [_row(bytes(record)) for record in records], console.width))
    return 0


async def _pages(client: RestClient, query: list[tuple[str, str]]) -> AsyncIterator[AuditPage]:
    after: int | None = 0
    while after is not None:
        page = await client.call(
            "GET", "/v1/admin/audit", query=[*query, ("after", str(after))], answer=AuditPage, timeout_s=120
        )
        yield page
        after = page.next


def _row(line: bytes) -> tuple[str, ...]:
    envelope = read_envelope(line)
    try:
        words = tuple(describe(read_record(line)))
    except msgspec.DecodeError:
        words = ("?", "", "", "a newer version's record: see --json")
    return (str(envelope.seq), envelope.time, *words)


async def verify(reactor: Any, invocation: Invocation, *, witness: bool) -> int:
    """Print whether the ledger's chain holds, and fits what the machines hold; BROKEN where it doesn't."""
    query = [("witness", "true")] if witness else []
    found = await ask(
        reactor,
        invocation,
        lambda client: client.call("GET", "/v1/admin/verify", query=query, answer=Verified, timeout_s=600),
    )
    if found.broken_seq is not None and not invocation.json:
        raise CliError(
            f"the ledger is broken at record {found.broken_seq}: {found.problem}",
            (f"the {found.records} records before it hang together; compare with a backup",),
            status=BROKEN,
        )
    text = f"the chain is whole: {found.records} records, the last is {found.head_seq}, {found.head_hash}\n"
    if witness:
        text += f"{found.witnesses} witnesses agree, from: {', '.join(found.machines) or 'no machine'}\n"
    if found.unasked:
        text += f"not asked, they are offline or don't answer: {', '.join(found.unasked)}\n"
    await invocation.console.out(msgspec.json.encode(found) + b"\n" if invocation.json else text)
    return 0 if found.broken_seq is None else BROKEN
