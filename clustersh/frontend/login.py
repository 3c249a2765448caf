"""``clustersh login`` and ``logout``: how this user gets a certificate, and gives it away."""

from __future__ import annotations

import getpass
import hmac
import os
import re
import socket
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..address import Address, parse_address
from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import CliError, UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..config import JoinConfig, load
from ..home import read_json
from ..pairing_client import Pairing, PairingEndedError, Started, forget_pending, read_pending
from ..pinning import check_reachable
from ..rest_client import RestClient
from ..trust.credentials import CERTIFICATE_FILE, Credentials, load_certificate
from ..trust.errors import TrustError
from ..trust.identity import Identity
from ..trust.tls import ClientPolicy, client_connection_creator
from ..wire.ids import clean_name, client_name, sha256_digits
from ..wire.rest import Whoami
from .session import approve_line, keep, new_pairing
from .state import LOGIN_FILE, Login, client_folder

_CHECK_DIGITS = re.compile(r"[0-9a-f]{4}")


class Options(NamedTuple):
    """What was asked for; *address* and *name* are None where none was given."""

    address: Address | None
    name: str | None
    again: bool
    wait: bool
    ca_sha256: str
    verify: bool
    dry_run: bool


class LoggedIn(NamedTuple):
    """Who this user is, and where."""

    name: str
    address: Address


def prepare_login(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``login``."""
    examples = (
        "clustersh login joshua-ws1",
        "clustersh login http://joshua-ws1:5672 --name joshua@laptop",
        "clustersh login --again --verify joshua-ws1",
    )
    parser = Parser("clustersh login", "Ask a coordinator to let this user in.", examples)
    parser.add_argument(
        "address",
        nargs="?",
        metavar="ADDRESS",
        type=reads(parse_address),
        help="the coordinator: host, or http://host:port",
    )
    parser.add_argument("--name", type=reads(client_name), help="what to be called there (user@host)")
    parser.add_argument("--again", action="store_true", help="replace the login there is")
    parser.add_argument("--no-wait", action="store_true", help="don't wait for the approval; the next command goes on")
    parser.add_argument(
        "--ca", type=reads(sha256_digits), metavar="SHA256", help="the coordinator's CA certificate must be this one"
    )
    parser.add_argument("--verify", action="store_true", help="ask for the check digits that clusterd approve shows")
    add_dry_run(parser)
    given = parser.read(invocation, arguments)
    if given.verify and given.no_wait:
        raise UsageError("--verify asks for what the approval shows, so it can't go with --no-wait")
    options = Options(
        given.address, given.name, given.again, not given.no_wait, given.ca or "", given.verify, given.dry_run
    )
    return lambda reactor: login(reactor, invocation, options)


def default_name(invocation: Invocation) -> str:
    """Return ``user@host``."""
    host = socket.gethostname().partition(".")[0]
    return f"{clean_name(user_name(invocation))}@{clean_name(host)}"


def user_name(invocation: Invocation) -> str:
    """Return who calls; the user's number where it has no name."""
    named = invocation.environ.get("USER") or invocation.environ.get("USERNAME")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def logged_in(folder: Path) -> LoggedIn | None:
    """Return who this user is by the certificate in *folder*; None where there is none that can be used."""
    login = read_json(folder / LOGIN_FILE, Login)
    if login is None:
        return None
    try:
        identity = Identity.from_certificate(load_certificate(folder / CERTIFICATE_FILE))
        return LoggedIn(identity.name, parse_address(login.coordinator))
    except (TrustError, ValueError):
        return None


async def login(reactor: Any, invocation: Invocation, options: Options) -> int:
    """Ask, show the code, wait for the approval, and say who this user is now."""
    folder, join = client_folder(invocation.home), load(invocation.home).join
    address = _coordinator(folder, options, join)
    present = logged_in(folder)
    if present is not None and not options.again and read_pending(folder) is None:
        return await _already(invocation, present, address)
    name, ca_sha256 = options.name or _usual_name(invocation, folder, address), options.ca_sha256 or join.ca or ""
    if options.dry_run:
        await check_reachable(reactor, address, ca_sha256)
        would = f"ask the coordinator at {address} to let {name} in"
        return await tell(invocation, would, name=name, coordinator=address.netloc)
    pairing = new_pairing(reactor, invocation, address, ca_sha256)
    try:
        started = await pairing.start(name)
        await _show(invocation, started, options)
        if not options.wait and not started.approved:
            return 0
        credentials = await pairing.wait()
    except PairingEndedError as error:
        raise CliError(str(error), (f"ask again: clustersh login {address}",), kind="unknown-pairing") from error
    if options.verify:
        await _verify(invocation, folder, started)
    present = LoggedIn(started.name, address)
    known = await finish(reactor, invocation, pairing, credentials, present)
    if invocation.json:
        await invocation.console.out(_document("logged-in", present, known))
        return 0
    machines = f"{known.machines} machine{'' if known.machines == 1 else 's'}, {known.online} online"
    await invocation.console.out(f"Logged in as {known.name}. {machines}. Try: clustersh machines\n")
    return 0


def _coordinator(folder: Path, options: Options, join: JoinConfig) -> Address:
    if options.address is not None:
        return options.address
    pending, present = read_pending(folder), logged_in(folder)
    if pending is not None:
        return parse_address(pending.address)
    if present is not None:
        return present.address
    if join.coordinator is not None:
        return join.coordinator.address
    raise UsageError("which coordinator?", ("clustersh login http://HOST:5672 (HOST is where clusterd runs)",))


def _usual_name(invocation: Invocation, folder: Path, address: Address) -> str:
    """Return what this user asked to be called at *address*, or is called there; else ``user@host``."""
    pending, present = read_pending(folder), logged_in(folder)
    if pending is not None and pending.address == address.netloc:
        return pending.name
    if present is not None and present.address == address:
        return present.name
    return default_name(invocation)


async def _already(invocation: Invocation, present: LoggedIn, address: Address) -> int:
    if address != present.address:
        raise CliError(
            f"already logged in as {present.name} at {present.address}",
            (f"to replace that: clustersh login --again {address}",),
        )
    if invocation.json:
        await invocation.console.out(_document("logged-in", present))
    else:
        text = f"Already logged in as {present.name} at {present.address}; --again replaces that.\n"
        await invocation.console.out(text)
    return 0


async def _show(invocation: Invocation, started: Started, options: Options) -> None:
    """Say how to approve it. With ``--json`` and without waiting that is the document, else it goes to stderr."""
    console, code = invocation.console, started.code
    if started.approved:
        return
    if invocation.json and not options.wait:
        fields = {"status": "pending", "name": started.name, "host": started.host, "code": code.code}
        document = {**fields, "check": code.check, "approve": f"clusterd approve {code.code}"}
        await console.out(msgspec.json.encode(document) + b"\n")
        return
    text = approve_line(started.name, started.host, code.code) + "\n"
    if not options.verify:
        text += f"It will show the check digits {code.check}; if it shows others, log out again: clustersh logout\n"
    await (console.err(text) if invocation.json else console.out(text))


async def _verify(invocation: Invocation, folder: Path, started: Started) -> None:
    """Ask for the check digits, and give up everything where they aren't ours."""
    await invocation.console.err("The check digits that clusterd approve shows: ")
    typed = (await invocation.stdin.read(64)).decode("ascii", "replace").strip().lower()
    if _CHECK_DIGITS.fullmatch(typed) and hmac.compare_digest(typed, started.code.check):
        return
    forget_pending(folder)
    raise CliError(
        "the check digits differ: this may not be the coordinator it claims to be, so nothing was kept",
        (f"on the coordinator's host, let that key in no more: clusterd revoke {started.name}",),
        kind="untrusted",
    )


async def finish(
    reactor: Any, invocation: Invocation, pairing: Pairing, credentials: Credentials, present: LoggedIn
) -> Whoami:
    """Log this user in, and return how the coordinator knows him."""
    keep(client_folder(invocation.home), pairing, credentials, Login(present.address.netloc))
    policy = ClientPolicy(client_connection_creator(credentials.ca, credentials.key, credentials.certificate))
    return await RestClient(reactor, present.address, policy).call("GET", "/v1/whoami", answer=Whoami)


def _document(status: str, present: LoggedIn, known: Whoami | None = None) -> bytes:
    counts = {"machines": known.machines, "online": known.online} if known is not None else {}
    document = {"status": status, "name": present.name, "coordinator": present.address.netloc, **counts}
    return msgspec.json.encode(document) + b"\n"
