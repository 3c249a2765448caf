"""``--dry-run``: a command says what it would do, or why it couldn't, and does nothing."""

from __future__ import annotations

import msgspec

from .invocation import Invocation
from .parser import Parser


def add_dry_run(parser: Parser) -> None:
    """Give *parser* the option that changes nothing."""
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")


async def tell(invocation: Invocation, would: str, **fields: object) -> int:
    """Say what the command *would* do (in JSON: *fields*), and return the exit status."""
    document = msgspec.json.encode({**fields, "dry_run": True}) + b"\n"
    await invocation.console.out(document if invocation.json else f"Would {would}; dry run: nothing was done.\n")
    return 0
