"""``clusteragent enroll``: asks a coordinator to take this machine in."""

from __future__ import annotations

import platform
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec

from ..address import Address, parse_address
from ..cli.commands import Start
from ..cli.errors import CliError, UsageError, from_problem
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..config import load
from ..home import private_folder, read_running, write_json
from ..wire.ids import clean_name, machine_name
from ..wire.problems import ProblemError
from .state import IDENTITY_FILE, AgentIdentity, NotEnrolledError, load_identity


class Enrolled(msgspec.Struct, frozen=True):
    """What ``enroll --json`` prints. *again*: it was enrolled before, and nothing changed."""

    machine: str
    id: str
    coordinator: str
    again: bool


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``enroll``."""
    parser = Parser(
        "clusteragent enroll",
        "Ask a coordinator to take this machine in.",
        ("clusteragent enroll joshua-ws1", "clusteragent enroll http://joshua-ws1:5672 --name joshua-mba"),
    )
    parser.add_argument("address", metavar="ADDRESS", nargs="?", type=reads(parse_address), help="the coordinator's")
    parser.add_argument(
        "--name", type=reads(machine_name), help="what the machine is called ([agent] name; its host name)"
    )
    parser.add_argument("--ca", metavar="SHA256", default="", help="the CA certificate that the coordinator must have")
    parser.add_argument("--again", action="store_true", help="although it is enrolled already")
    options = parser.read(invocation, arguments)
    return lambda reactor: enroll(reactor, invocation, options)


async def enroll(reactor: Any, invocation: Invocation, options: Namespace) -> int:
    """Enroll, waiting for the approval where the coordinator wants one."""
    from ..pairing_client import forget_pending

    folder = private_folder(invocation.home / "agent")
    known = _known(folder)
    if known is not None and not options.again:
        return await _enrolled_already(invocation, known, options)
    address: Address | None = options.address or (known.address if known is not None else None)
    if address is None:
        raise UsageError("which coordinator?", ("clusteragent enroll ADDRESS, such as joshua-ws1 or 10.0.0.5:5672",))
    name = options.name or load(invocation.home).agent.name or (known and known.machine) or _host_name()
    identity = await _pair(reactor, invocation, folder, address, name, options.ca)
    write_json(folder / IDENTITY_FILE, identity)
    forget_pending(folder)
    await _show(invocation, identity, again=False)
    if read_running(folder) is not None:
        await invocation.console.hint("the agent that runs here must be started again")
    return 0


async def _pair(
    reactor: Any, invocation: Invocation, folder: Path, address: Address, name: str, ca_sha256: str
) -> AgentIdentity:
    from ..pairing_client import Pairing
    from ..rest_client import RestClient, Unreachable
    from ..trust.identity import Identity, Role

    client = RestClient(reactor, address, None)
    pairing = Pairing(reactor, client, folder, Role.AGENT, ca_sha256=ca_sha256, now=invocation.now)

    try:
        started = await pairing.start(name)
        if not started.approved:
            await invocation.console.err(
                f"To allow {name}, run on {started.host or address.host}:  clusterd approve {started.code.code}"
                "   (10 minutes)\n"
            )
        credentials = await pairing.wait()
        pairing.keep(credentials)
    except Unreachable as error:
        raise CliError(error.message, (error.hint,) if error.hint else (), kind="unavailable") from error
    except ProblemError as error:
        raise from_problem(error.problem) from error
    finally:
        await client.close()
    found = Identity.from_certificate(credentials.certificate)
    return AgentIdentity(address.netloc, found.name, found.id)


def _known(folder: Path) -> AgentIdentity | None:
    try:
        return load_identity(folder)
    except NotEnrolledError:
        return None


async def _enrolled_already(invocation: Invocation, known: AgentIdentity, options: Namespace) -> int:
    other_address = options.address is not None and options.address != known.address
    if other_address or (options.name is not None and options.name != known.machine):
        raise UsageError(
            f"this machine is enrolled as {known.machine} with the coordinator at {known.coordinator}",
            ("clusteragent enroll ... --again replaces that",),
        )
    await _show(invocation, known, again=True)
    return 0


async def _show(invocation: Invocation, identity: AgentIdentity, *, again: bool) -> None:
    if invocation.json:
        document = Enrolled(identity.machine, identity.id, identity.coordinator, again)
        await invocation.console.out(msgspec.json.encode(document) + b"\n")
        return
    verb = "Enrolled already" if again else "Enrolled"
    await invocation.console.out(f"{verb} as {identity.machine}, with the coordinator at {identity.coordinator}.\n")


def _host_name() -> str:
    return clean_name(platform.node().partition(".")[0])
