"""``clusterd approve``, ``pending``, ``clients``, ``revoke``, ``machines``, ``forget`` and ``accept``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..cli.tables import render_table
from ..cli.text import printable
from ..wire.policy import AllowedRun
from ..wire.rest import Approve, Approved, Client, Clients, Machine, Machines, NameOf, PendingList
from ..wire.units import format_duration, parse_timestamp
from .admin_client import ask

_SHOWN = 10


def prepare_approve(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``approve``."""
    examples = ("clusterd approve 1a2b3c4d", "clusterd approve --ai 1a2b3c4d")
    summary = "Let in whoever shows this code, or allow the command that was refused with it, once."
    parser = Parser("clusterd approve", summary, examples)
    parser.add_argument("--ai", action="store_true", help="this client is an AI agent's: what it forces is approved")
    parser.add_argument("code", type=reads(_code), metavar="CODE", help="the 8 hex digits that the other side shows")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    return lambda reactor: approve(reactor, invocation, Approve(options.code, options.ai, options.dry_run))


async def approve(reactor: Any, invocation: Invocation, typed: Approve) -> int:
    """Approve, and print who was let in, or what was allowed."""
    approved = await ask(
        reactor,
        invocation,
        lambda client: client.call("POST", "/v1/admin/approve", typed, answer=Approved),
    )
    if typed.dry_run and invocation.json:
        return await tell(invocation, "", **msgspec.structs.asdict(approved))
    text = _allowed(approved, "Would allow") + "dry run: nothing was done\n" if typed.dry_run else _allowed(approved)
    await _print(invocation, approved, text)
    return 0


def _allowed(approved: Approved, did: str = "Allowed") -> str:
    run = approved.allowed
    if run is None:
        role = "an AI agent's client" if approved.ai else approved.role
        return (
            f"{did} {printable(approved.name)} ({role}) from {approved.address}.\n"
            f"key:   {approved.fingerprint}\n"
            f"check: {approved.check} (the other side shows the same 4 digits; if not, revoke it)\n"
        )
    parts = [
        ("command", run.command),
        ("in", run.cwd),
        ("with", _given(run)),
        ("on", f"{run.target} ({_few(run.machines, run.count)})"),
        *(("rule", f"{rule} ({words})" if words else rule) for rule, words in zip_longest(run.rules, run.where)),
    ]
    told = "".join(f"{name + ':':<8} {printable(text)}\n" for name, text in parts if text)
    return f"{did} {printable(run.client)} to run this, once, within 10 minutes:\n{told}"


def _given(run: AllowedRun) -> str:
    """Return what else the command is given."""
    variables = [f"variables {_few(run.env, len(run.env))}"] if run.env else []
    return "; ".join([*variables, *(["files"] if run.files else []), *(["standard input"] if run.stdin else [])])


def _few(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {count - _SHOWN} more" if count > _SHOWN else "")


def prepare_pending(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``pending``."""
    summary = "List who waits to be let in, and which runs wait. Codes are never shown: the one who asks must tell you."
    Parser("clusterd pending", summary, ("clusterd pending",)).read(invocation, arguments)
    return lambda reactor: pending(reactor, invocation)


async def pending(reactor: Any, invocation: Invocation) -> int:
    """Print who waits."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/admin/pending", answer=PendingList))
    rows = [
        (waiting.name, waiting.role, waiting.address, f"{format_duration(waiting.age_s)} ago", printable(waiting.what))
        for waiting in found.pending
    ]
    await _print(invocation, found, _table(invocation, ("name", "role", "address", "asked", "for"), rows))
    return 0


def prepare_clients(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``clients``."""
    Parser("clusterd clients", "List the users that were let in.", ("clusterd clients",)).read(invocation, arguments)
    return lambda reactor: clients(reactor, invocation)


async def clients(reactor: Any, invocation: Invocation) -> int:
    """Print every client there ever was."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/admin/clients", answer=Clients))
    rows = [
        (
            client.name,
            _client_status(client),
            _day(client.enrolled),
            client.address,
            "AI agent" if client.ai else "",
            f"{client.tailnet.login} on {client.tailnet.node}" if client.tailnet else "",
            client.fingerprint,
        )
        for client in found.clients
    ]
    headers = ("name", "status", "enrolled", "address", "kind", "tailnet", "key")
    await _print(invocation, found, _table(invocation, headers, rows))
    return 0


def prepare_machines(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``machines``."""
    Parser("clusterd machines", "List the machines.", ("clusterd machines",)).read(invocation, arguments)
    return lambda reactor: machines(reactor, invocation)


async def machines(reactor: Any, invocation: Invocation) -> int:
    """Print every machine that is trusted."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", "/v1/machines", answer=Machines))
    rows = [
        (
            machine.name,
            machine.platform,
            machine.status,
            _last_seen(machine, invocation.now()),
            machine.version,
            _day(machine.enrolled),
            machine.address,
            machine.fingerprint,
        )
        for machine in found.machines
    ]
    headers = ("name", "platform", "status", "last seen", "version", "enrolled", "address", "key")
    await _print(invocation, found, _table(invocation, headers, rows))
    return 0


def prepare_revoke(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``revoke``."""
    summary = "Let a user in no more; what is connected with that key is cut off at once."
    return _prepare_name(invocation, arguments, "revoke", summary, "joshua@mba", "Revoked {name}.\n")


def prepare_forget(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``forget``."""
    summary = "Let a machine in no more and free its name; its open jobs end as lost."
    return _prepare_name(invocation, arguments, "forget", summary, "joshua-ws1", "Forgot {name}.\n")


def prepare_accept(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``accept``."""
    summary = "Have a machine that is new be part of all, of patterns and of groups, as any other."
    return _prepare_name(invocation, arguments, "accept", summary, "web-07", "Accepted {name}.\n")


def _prepare_name(
    invocation: Invocation, arguments: tuple[str, ...], verb: str, summary: str, example: str, done: str
) -> Start:
    parser = Parser(f"clusterd {verb}", summary, (f"clusterd {verb} {example}",))
    parser.add_argument("name", metavar="NAME")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    named = NameOf(options.name, options.dry_run)

    async def start(reactor: Any) -> int:
        await ask(reactor, invocation, lambda client: client.call("POST", f"/v1/admin/{verb}", named))
        if named.dry_run:
            return await tell(invocation, f"{verb} {printable(named.name)}", name=named.name)
        await _print(invocation, named, done.format(name=printable(named.name)))
        return 0

    return start


async def _print(invocation: Invocation, document: object, text: str) -> None:
    await invocation.console.out(msgspec.json.encode(document) + b"\n" if invocation.json else text)


def _table(invocation: Invocation, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return render_table(headers, rows, invocation.console.width)


def _client_status(client: Client) -> str:
    return "allowed" if client.revoked is None else f"revoked {_day(client.revoked)}"


def _last_seen(machine: Machine, now: float) -> str:
    if machine.status == "online":
        return "now"
    if machine.last_seen is None:
        return "never"
    return f"{format_duration(max(0.0, now - parse_timestamp(machine.last_seen)))} ago"


def _code(text: str) -> str:
    code = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{8}", code):
        raise ValueError(f"{text!r} is no code: 8 hex digits, as the login or enrollment shows them")
    return code


def _day(time: str) -> str:
    return time[:10]
