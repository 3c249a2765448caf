"""The way from ``clusterd``'s commands to the running service: the admin certificate, and the address in run.json."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from ..address import parse_address
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..home import read_running
from ..rest_client import RestClient, Unreachable
from ..trust.tls import load_client_policy

T = TypeVar("T")
ADMIN_FOLDER = "admin"
SERVICE_HOME = Path("/var/lib/clustersh")
"""Where packaging/systemd has the state: of a user of its own, whom an admin will hardly be logged in as."""


async def ask(reactor: Any, invocation: Invocation, question: Callable[[RestClient], Awaitable[T]]) -> T:
    """Return what *question* gets from the running coordinator. Raises CliError, ProblemError or TrustError."""
    client = _connect(reactor, invocation)
    try:
        return await question(client)
    except Unreachable as error:
        raise CliError(error.message, (error.hint,) if error.hint else (), kind="unavailable") from error
    finally:
        await client.close()


def _connect(reactor: Any, invocation: Invocation) -> RestClient:
    folder = invocation.home / "coordinator"
    check_readable(folder, invocation)
    running = read_running(folder)
    if running is None:
        elsewhere = "its state is elsewhere? Set CLUSTERSH_HOME as the service has it"
        if not invocation.environ.get("CLUSTERSH_HOME") and SERVICE_HOME.is_dir():
            elsewhere = _sudo_line(invocation, _owner(SERVICE_HOME), os.fspath(SERVICE_HOME))
        raise CliError(
            f"no coordinator is running on the state in {folder}",
            ("start one with: clusterd", elsewhere),
            kind="unavailable",
        )
    if not running.address:
        raise CliError("the coordinator is just starting", ("try again in a moment",), kind="unavailable")
    return RestClient(reactor, parse_address(running.address), load_client_policy(folder / ADMIN_FOLDER))


def check_readable(folder: Path, invocation: Invocation) -> None:
    """Raise CliError where this user may not use the coordinator's state, naming who may."""
    closed = _closed_part(folder)
    if closed is None:
        return
    owner = _owner(closed)
    line = _sudo_line(invocation, owner, invocation.environ.get("CLUSTERSH_HOME", ""))
    raise CliError(f"the coordinator's state in {folder} is {owner}'s alone", (line,), kind="no-certificate")


def _sudo_line(invocation: Invocation, owner: str, home: str) -> str:
    """Return what was typed, as *owner* and with the state in *home* (that user's own where it is empty)."""
    # sudo has its own PATH, and takes variables from trusted users only: so `env`, and the program's whole path.
    program = shutil.which(invocation.program, path=invocation.environ.get("PATH")) or invocation.program
    setting = ("env", f"CLUSTERSH_HOME={home}") if home else ()
    return shlex.join(["sudo", "-u", owner, *setting, program, *invocation.argv])


def _closed_part(folder: Path) -> Path | None:
    """Return the part of the path to *folder* that this user may not enter; None where there is none."""
    for part in (*reversed(folder.parents), folder):
        try:
            if not part.exists():
                return None
        except PermissionError:
            return part.parent
        if not os.access(part, os.X_OK) or (part == folder and not os.access(part, os.R_OK)):
            return part
    return None


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError, NotImplementedError):
        return f"#{path.stat().st_uid}"
