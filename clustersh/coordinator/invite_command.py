"""``clusterd invite``: the line that brings a machine in over a network that nobody trusts."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import msgspec

from ..address import Address, parse_address
from ..cli.commands import Start
from ..cli.dry_run import add_dry_run
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..home import read_running
from ..rest_client import RestClient
from ..wire.joining import CreateToken, Invitation, TokenMade
from ..wire.units import parse_duration
from .admin_client import ask
from .join_lines import pinned_line, powershell_line
from .token_command import tell_of


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``invite``."""
    parser = Parser(
        "clusterd invite",
        "Print the line that makes a machine join over a network that isn't trusted: it holds what this coordinator\n"
        "is known by, so an impostor's script is never run. Hand it on by a way that is trusted.",
        ("clusterd invite", "clusterd invite --client", "clusterd invite --token 1d --address hub.example:5672"),
    )
    parser.add_argument("--client", action="store_true", help="for a machine that commands are typed on")
    parser.add_argument(
        "--token",
        nargs="?",
        type=reads(_token_for),
        const=CreateToken(),
        metavar="TTL",
        help='with a join token for one machine, good for TTL (1h), where [enrollment] policy is "token"',
    )
    parser.add_argument(
        "--address",
        type=reads(parse_address),
        metavar="HOST[:PORT]",
        help="where machines reach this coordinator (default: this host's name)",
    )
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if options.client and options.token:
        raise UsageError("a token lets machines in, not users: leave --token or --client out")
    if options.dry_run and not options.token:
        raise UsageError("--dry-run goes with --token: without one nothing is changed")
    how = {"client": options.client, "token": options.token, "dry_run": options.dry_run}
    return lambda reactor: invite(reactor, invocation, options.address, **how)


async def invite(
    reactor: Any,
    invocation: Invocation,
    address: Address | None,
    *,
    client: bool,
    token: CreateToken | None,
    dry_run: bool,
) -> int:
    """Print the lines for shells and for PowerShell; with *dry_run* only which token would be made for them."""
    chosen = address or own_address(invocation.home)

    async def make(rest: RestClient) -> tuple[Invitation, str]:
        query = [("address", chosen.netloc)]
        invitation = await rest.call("GET", "/v1/admin/invite", query=query, answer=Invitation)
        if token is None or dry_run:
            return invitation, ""
        return invitation, (await rest.call("POST", "/v1/admin/tokens", token, answer=TokenMade)).token

    made, secret = await ask(reactor, invocation, make)
    if token is not None and dry_run:
        return await tell_of(invocation, token)
    shell = pinned_line(made, chosen, client=client, token=secret)
    powershell = powershell_line(made, chosen, client=client, token=secret)
    if invocation.json:
        document = {**msgspec.to_builtins(made), "line": shell, "powershell": powershell}
        await invocation.console.out(msgspec.json.encode(document) + b"\n")
        return 0
    await invocation.console.out(f"Linux, macOS:\n{shell}\n\nWindows:\n{powershell}\n")
    if address is None:
        await invocation.console.hint(
            f"if machines reach this host by another name than {chosen.host}: --address HOST:{chosen.port}"
        )
    return 0


def _token_for(text: str) -> CreateToken:
    return CreateToken(ttl_s=parse_duration(text))


def own_address(home: Path) -> Address:
    """Return where machines probably reach the coordinator; its own port where it doesn't run."""
    running = read_running(home / "coordinator")
    listening = parse_address(running.address) if running is not None and running.address else Address("localhost")
    try:
        at = ipaddress.ip_address(listening.host)
    except ValueError:
        return listening
    nowhere_else = at.is_loopback or at.is_unspecified
    return Address(socket.gethostname().lower(), listening.port) if nowhere_else else listening
