"""``clustersh logout``: this user's key is deleted, and the coordinator told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..rest_client import RestClient, Unreachable
from ..trust.errors import TrustError
from ..trust.tls import load_client_policy
from ..wire.problems import Kind, ProblemError
from .login import LoggedIn, logged_in
from .session import forget, holds
from .state import client_folder

_NOTHING = "Not logged in; nothing to do.\n"
_CALL_S = 5.0
"""Seconds for telling the coordinator; logging out has to work without it."""


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``logout``."""
    summary = "Forget the coordinator, delete this user's key, and free the name."
    parser = Parser("clustersh logout", summary, ("clustersh logout", "clustersh logout --dry-run"))
    add_dry_run(parser)
    if parser.read(invocation, arguments).dry_run:
        return lambda reactor: would_log_out(invocation)
    return lambda reactor: logout(reactor, invocation)


async def would_log_out(invocation: Invocation) -> int:
    """Say what `logout` would give up."""
    folder = client_folder(invocation.home)
    present, found = logged_in(folder), holds(folder)
    if not found and not invocation.json:
        await invocation.console.out(_NOTHING)
        return 0
    would = f"give up {present.name} at {present.address}, and delete its key" if present else "delete an unused key"
    return await tell(invocation, would, logged_out=found, name=present.name if present else None)


async def logout(reactor: Any, invocation: Invocation) -> int:
    """Give the certificate up, then delete it, the key, and whatever was asked for."""
    folder = client_folder(invocation.home)
    present = logged_in(folder)
    revoked = present is not None and await _give_up(reactor, folder, present)
    was = forget(folder)
    console = invocation.console
    if invocation.json:
        document = {"logged_out": was, "name": present.name if present else None, "revoked": revoked}
        await console.out(msgspec.json.encode(document) + b"\n")
    else:
        await console.out("Logged out; the key is deleted.\n" if was else _NOTHING)
    if present is not None and not revoked:
        await console.hint(f"to free the name, run on {present.address.host}: clusterd revoke {present.name}")
    return 0


async def _give_up(reactor: Any, folder: Path, present: LoggedIn) -> bool:
    """Have the coordinator trust this user's key no more, if it can be told; return whether it doesn't."""
    try:
        client = RestClient(reactor, present.address, load_client_policy(folder))
        try:
            await client.call("POST", "/v1/leave", timeout_s=_CALL_S)
        finally:
            await client.close()
    except ProblemError as error:
        return error.problem.kind is Kind.UNTRUSTED  # it was revoked before
    except (Unreachable, TrustError):
        return False
    return True
