"""``clustersh logout``: this user's key is deleted, and the coordinator told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..rest_client import RestClient, Unreachable
from ..trust.errors import TrustError
from ..trust.tls import load_client_policy
from ..wire.problems import Kind, ProblemError
from .login import LoggedIn, logged_in
from .session import forget
from .state import client_folder

_CALL_S = 5.0
"""Seconds for telling the coordinator; logging out has to work without it."""


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``logout``."""
    summary = "Forget the coordinator, delete this user's key, and free the name."
    Parser("clustersh logout", summary, ("clustersh logout",)).read(invocation, arguments)
    return lambda reactor: logout(reactor, invocation)


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
        await console.out("Logged out; the key is deleted.\n" if was else "Not logged in; nothing to do.\n")
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
