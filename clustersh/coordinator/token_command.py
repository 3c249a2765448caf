"""``clusterd token create``, ``list`` and ``revoke``: what lets machines in where `[enrollment] policy` is "token"."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..cli.tables import render_table
from ..trust.tokens import TOKEN_VARIABLE
from ..wire.joining import CreateToken, TokenId, TokenMade, Tokens
from ..wire.units import format_timeout, parse_duration
from .admin_client import ask

_PATH = "/v1/admin/tokens"


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``token``."""
    parser = Parser(
        "clusterd token",
        "Make, list and revoke join tokens, each of which lets a number of machines in until it ends.",
        ("clusterd token create --ttl 1d --uses 20", "clusterd token list", "clusterd token revoke 1a2b3c4d5e6f"),
    )
    parser.add_argument("verb", choices=("create", "list", "revoke"))
    parser.add_argument("id", nargs="?", metavar="ID", help="revoke: the part of the token before the dash")
    parser.add_argument("--ttl", type=reads(parse_duration), metavar="TIME", help="create: how long it is good (1h)")
    parser.add_argument("--uses", type=int, metavar="N", help="create: how many machines it lets in (1)")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if (options.verb == "revoke") != (options.id is not None):
        raise UsageError("revoke, and only that, takes a token's id", ("clusterd token list shows them",))
    if options.verb != "create" and (options.ttl is not None or options.uses is not None):
        raise UsageError("--ttl and --uses go with create", ("clusterd token --help",))
    if options.verb == "create":
        return _prepare_create(invocation, options)
    if options.verb == "revoke":
        # A whole token is taken too, but its secret stays here.
        named = TokenId(options.id.strip().partition("-")[0], options.dry_run)
        return lambda reactor: revoke(reactor, invocation, named)
    return lambda reactor: show(reactor, invocation)


def _prepare_create(invocation: Invocation, options: Namespace) -> Start:
    given = {"ttl_s": options.ttl, "uses": options.uses}
    try:
        wanted = CreateToken(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise UsageError(str(error), ("clusterd token --help",)) from error
    return lambda reactor: (would_create if options.dry_run else create)(reactor, invocation, wanted)


async def create(reactor: Any, invocation: Invocation, wanted: CreateToken) -> int:
    """Make a token and print it."""
    made = await ask(reactor, invocation, lambda client: client.call("POST", _PATH, wanted, answer=TokenMade))
    machines = "1 machine" if made.uses == 1 else f"{made.uses} machines"
    console = invocation.console
    await _print(invocation, made, f"{made.token}\n")
    await console.hint(
        f"lets {machines} in until {made.expires}; on each: {TOKEN_VARIABLE}=... clusteragent enroll ADDRESS"
    )
    if made.policy != "token":
        await console.hint(f'[enrollment] policy is "{made.policy}": no machine is asked for a token')
    return 0


async def show(reactor: Any, invocation: Invocation) -> int:
    """Print the tokens, without their secrets."""
    found = await ask(reactor, invocation, lambda client: client.call("GET", _PATH, answer=Tokens))
    rows = [
        (token.id, token.status, f"{token.used} of {token.uses}", token.created[:19], token.expires[:19])
        for token in found.tokens
    ]
    table = render_table(("id", "status", "used", "created", "ends (UTC)"), rows, invocation.console.width)
    await _print(invocation, found, table)
    return 0


async def would_create(reactor: Any, invocation: Invocation, wanted: CreateToken) -> int:
    """Say what token `create` would make, where a coordinator runs."""
    await ask(reactor, invocation, lambda client: client.call("GET", _PATH, answer=Tokens))
    return await tell_of(invocation, wanted)


async def tell_of(invocation: Invocation, wanted: CreateToken) -> int:
    """Say what token would be made, and return the exit status."""
    machines = "1 machine" if wanted.uses == 1 else f"{wanted.uses} machines"
    would = f"make a token that lets {machines} in, for {format_timeout(wanted.ttl_s)}"
    return await tell(invocation, would, uses=wanted.uses, ttl_s=wanted.ttl_s)


async def revoke(reactor: Any, invocation: Invocation, named: TokenId) -> int:
    """Let nobody in with it any more."""
    await ask(reactor, invocation, lambda client: client.call("POST", f"{_PATH}/revoke", named))
    if named.dry_run:
        return await tell(invocation, f"revoke the token {named.id}", id=named.id)
    await _print(invocation, named, f"Revoked the token {named.id}.\n")
    return 0


async def _print(invocation: Invocation, document: object, text: str) -> None:
    await invocation.console.out(msgspec.json.encode(document) + b"\n" if invocation.json else text)
