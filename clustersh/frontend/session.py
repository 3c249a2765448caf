"""What login leaves behind, and how the next command takes it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..address import Address, parse_address
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..home import write_json
from ..pairing_client import Pairing, PairingEndedError, Pending, forget_pending, read_pending
from ..pinning import PAIRING_ANSWER_LIMIT
from ..rest_client import RestClient
from ..trust.credentials import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Credentials
from ..trust.identity import Role
from .state import LOGIN_FILE, Login, client_folder

_LOGIN_FILES = (LOGIN_FILE, CERTIFICATE_FILE, KEY_FILE, CA_FILE)


class NotApproved(CliError):
    """The login still waits for somebody to approve it."""

    def __init__(self, pending: Pending) -> None:
        super().__init__(
            "login not approved yet",
            (approve_line(pending.name, pending.host, pending.code.code),),
            kind="no-certificate",
        )


def approve_line(name: str, host: str, code: str) -> str:
    """Return what tells a person how to let *name* in."""
    return f"To allow {name}, run on {host}:  clusterd approve {code}   (10 minutes)"


def new_pairing(reactor: Any, invocation: Invocation, address: Address, ca_sha256: str = "") -> Pairing:
    """Return the pairing of this user with the coordinator at *address*."""
    plain = RestClient(reactor, address, None, answer_limit=PAIRING_ANSWER_LIMIT)
    folder = client_folder(invocation.home)
    return Pairing(reactor, plain, folder, Role.FRONTEND, ca_sha256=ca_sha256, now=invocation.now)


def keep(folder: Path, pairing: Pairing, credentials: Credentials, login: Login) -> None:
    """Log this user in."""
    pairing.keep(credentials)
    write_json(folder / LOGIN_FILE, login)
    forget_pending(folder)


def holds(folder: Path) -> bool:
    """Whether there is anything that `forget` would delete."""
    return read_pending(folder) is not None or any((folder / name).exists() for name in _LOGIN_FILES)


def forget(folder: Path) -> bool:
    """Log this user out; return whether there was anything to delete."""
    found = holds(folder)
    for name in _LOGIN_FILES:
        (folder / name).unlink(missing_ok=True)
    forget_pending(folder)
    return found


async def take_up_pending(reactor: Any, invocation: Invocation) -> None:
    """Finish a login that was left pending, if it was approved in the meantime.

    Raises NotApproved where it wasn't and there is no older login; PairingEndedError where it was refused.
    """
    folder = client_folder(invocation.home)
    pending = read_pending(folder)
    if pending is None:
        forget_pending(folder)
        return
    logged_in = (folder / LOGIN_FILE).exists()
    pairing = new_pairing(reactor, invocation, parse_address(pending.address))
    try:
        credentials = await pairing.poll()
    except PairingEndedError:
        if not logged_in:
            raise
        return
    if credentials is not None:
        keep(folder, pairing, credentials, Login(pending.address))
    elif not logged_in:
        raise NotApproved(pending)
