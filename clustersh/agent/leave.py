"""``clusteragent leave``: the machine gives its registration up, and deletes its key. The way to uninstall it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..home import HomeError, ServiceLock, read_running
from ..trust.credentials import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from ..wire.problems import Kind, ProblemError
from .state import IDENTITY_FILE, STATUS_FILE, AgentIdentity, NotEnrolledError, load_identity

_PENDING_FILE = "pending.json"
_CALL_S = 15.0
_STOP_FIRST = "stop the agent first, then run this again"


class Left(msgspec.Struct, frozen=True):
    """What ``leave --json`` prints. *retired*: the coordinator trusts this machine no more; *kept*: the job store."""

    machine: str | None
    retired: bool
    kept: str | None


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``leave``."""
    parser = Parser(
        "clusteragent leave",
        "Give this machine's registration up: its name is free, and its key is deleted.",
        ("clusteragent leave", "clusteragent leave --purge"),
    )
    parser.add_argument("--purge", action="store_true", help="delete the jobs and their outputs, too")
    parser.add_argument("--force", action="store_true", help="although the coordinator can't be told")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if options.dry_run:
        return lambda reactor: would_leave(invocation, purge=options.purge)
    return lambda reactor: leave(reactor, invocation, options)


async def would_leave(invocation: Invocation, *, purge: bool) -> int:
    """Say what `leave` would give up. Raises CliError where an agent runs."""
    folder = invocation.home / "agent"
    running, identity = read_running(folder), _identity(folder) if folder.exists() else None
    if running is not None:
        raise CliError(f"{folder} is in use by process {running.pid}", (_STOP_FIRST,), kind="unavailable")
    if identity is None and not invocation.json:
        return await _tell(invocation, Left(None, retired=False, kept=None))
    jobs = (folder / "jobs").exists()
    kept = str(folder) if jobs and not purge else None
    would = f"give up the registration of {identity.machine if identity else 'nothing'}, and delete its key"
    would += ", its jobs and their outputs" if jobs and purge else ""
    return await tell(invocation, would, machine=identity.machine if identity else None, kept=kept)


async def leave(reactor: Any, invocation: Invocation, options: Namespace) -> int:
    """Retire this machine, then delete what it was known by. It may be done again: whatever is left is deleted."""
    folder = invocation.home / "agent"
    if not folder.exists():
        return await _tell(invocation, Left(None, retired=False, kept=None))
    lock = ServiceLock(folder)
    try:
        lock.take()
    except HomeError as error:
        raise CliError(str(error), (_STOP_FIRST,), kind="unavailable") from error
    try:
        identity = _identity(folder)
        retired = identity is not None and await _retire(reactor, folder, identity, force=options.force)
        _delete_identity(folder)
        if options.purge:
            await invocation.in_thread(lambda: _purge(folder))
    finally:
        lock.release()
    kept = str(folder) if (folder / "jobs").exists() else None
    return await _tell(invocation, Left(identity.machine if identity else None, retired, kept))


async def _retire(reactor: Any, folder: Path, identity: AgentIdentity, *, force: bool) -> bool:
    """Have the coordinator trust this machine no more; False where it could not be told. Raises CliError."""
    from ..rest_client import RestClient, Unreachable
    from ..trust.errors import MissingCredentialsError, TrustError
    from ..trust.tls import load_client_policy

    try:
        client = RestClient(reactor, identity.address, load_client_policy(folder, datetime.now(UTC)))
        try:
            await client.call("POST", "/v1/leave", timeout_s=_CALL_S)
        finally:
            await client.close()
    except ProblemError as error:
        if error.problem.kind is Kind.UNTRUSTED:  # it was forgotten before
            return True
        why, hint = error.problem.detail, error.problem.hint
    except Unreachable as error:
        why, hint = error.message, error.hint
    except MissingCredentialsError:  # it was stopped in the middle the last time: nothing can be told without the key
        return False
    except (TrustError, HomeError) as error:
        why, hint = str(error), ""
    else:
        return True
    if force:
        return False
    raise CliError(
        f"the coordinator can't be told that {identity.machine} leaves: {why}",
        (
            *((hint,) if hint else ()),
            "clusteragent leave --force deletes this machine's key all the same; "
            f"then, on the coordinator: clusterd forget {identity.machine}",
        ),
        kind="unavailable",
    )


def _identity(folder: Path) -> AgentIdentity | None:
    try:
        return load_identity(folder)
    except NotEnrolledError:
        return None


def _delete_identity(folder: Path) -> None:
    # The coordinator has let those go, too, that this machine carried.
    shutil.rmtree(folder / "carried", ignore_errors=True)
    # The identity last: as long as it is there, a second time knows what this one was about.
    for name in (KEY_FILE, CERTIFICATE_FILE, CA_FILE, _PENDING_FILE, STATUS_FILE, IDENTITY_FILE):
        (folder / name).unlink(missing_ok=True)


def _purge(folder: Path) -> None:
    """Delete *folder*, which may be a link to where there is more room."""
    try:
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():
            folder.unlink()
    except OSError as error:
        raise CliError(f"can't delete {error.filename or folder}: {error.strerror}", kind="storage") from error


async def _tell(invocation: Invocation, left: Left) -> int:
    console = invocation.console
    if invocation.json:
        await console.out(msgspec.json.encode(left) + b"\n")
    elif left.machine is None:
        await console.out("Not enrolled; nothing to give up.\n")
    else:
        await console.out(f"{left.machine} has left; its key is deleted.\n")
    if left.machine is not None and not left.retired:
        await console.hint(f"the coordinator may still list it; run there: clusterd forget {left.machine}")
    if left.kept is not None:
        await console.hint(f"jobs and their outputs stay in {left.kept}; to delete them: clusteragent leave --purge")
    return 0
