"""``clusteragent enroll``: asks a coordinator to take this machine in."""

from __future__ import annotations

import platform
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..address import Address, parse_address
from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import CliError, UsageError, from_problem
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..config import JoinConfig, load
from ..home import private_folder, read_running, write_json
from ..trust.tokens import TOKEN_VARIABLE, read_token
from ..wire.ids import clean_name, machine_name, sha256_digits
from ..wire.problems import Kind, ProblemError
from .state import IDENTITY_FILE, AgentIdentity, NotEnrolledError, load_identity

if TYPE_CHECKING:
    from ..pairing_client import Started
    from ..trust.tokens import JoinToken


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
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="?",
        type=reads(parse_address),
        help="the coordinator's ([join] coordinator)",
    )
    parser.add_argument(
        "--name", type=reads(machine_name), help="what the machine is called ([agent] name; its host name)"
    )
    parser.add_argument(
        "--ca", metavar="SHA256", type=reads(sha256_digits), help="the CA certificate that it must have ([join] ca)"
    )
    parser.add_argument("--again", action="store_true", help="although it is enrolled already")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    return lambda reactor: enroll(reactor, invocation, options)


async def enroll(reactor: Any, invocation: Invocation, options: Namespace) -> int:
    """Enroll, waiting for the approval where the coordinator wants one."""
    from ..pairing_client import forget_pending

    folder = invocation.home / "agent"
    known, config = _known(folder), load(invocation.home)
    if options.name and config.agent.name and options.name != config.agent.name:
        raise UsageError(
            f"config.toml says that this machine is called {config.agent.name}",
            ("change [agent] name there; the agent would go back to it at its next start",),
        )
    if known is not None and not options.again:
        return await _enrolled_already(invocation, known, options)
    address = options.address or _usual_address(known, config.join)
    if address is None:
        raise UsageError("which coordinator?", ("clusteragent enroll ADDRESS, such as joshua-ws1 or 10.0.0.5:5672",))
    name = str(options.name or config.agent.name or (known and known.machine) or _host_name())
    ca_sha256 = options.ca or config.join.ca or ""
    if options.dry_run:
        return await _would_enroll(reactor, invocation, address, name, ca_sha256)
    identity = await _pair(reactor, invocation, private_folder(folder), address, name, ca_sha256)
    write_json(folder / IDENTITY_FILE, identity)
    forget_pending(folder)
    await _show(invocation, identity, again=False)
    if read_running(folder) is not None:
        await invocation.console.hint("the agent that runs here must be started again")
    return 0


async def _would_enroll(reactor: Any, invocation: Invocation, address: Address, name: str, ca_sha256: str) -> int:
    from ..pinning import check_reachable
    from ..rest_client import Unreachable

    try:
        await check_reachable(reactor, address, ca_sha256)
    except Unreachable as error:
        raise CliError(error.message, (error.hint,) if error.hint else (), kind="unavailable") from error
    would = f"ask the coordinator at {address.netloc} to take this machine in as {name}"
    return await tell(invocation, would, machine=name, coordinator=address.netloc)


async def _pair(
    reactor: Any, invocation: Invocation, folder: Path, address: Address, name: str, ca_sha256: str
) -> AgentIdentity:
    from ..pairing_client import Pairing
    from ..pinning import PAIRING_ANSWER_LIMIT
    from ..rest_client import RestClient, Unreachable
    from ..trust.identity import Identity, Role

    plain = RestClient(reactor, address, None, answer_limit=PAIRING_ANSWER_LIMIT)
    pairing = Pairing(
        reactor, plain, folder, Role.AGENT, ca_sha256=ca_sha256, token=_token(invocation), now=invocation.now
    )

    try:
        started = await pairing.start(name)
        if started.needs_token:
            raise _refused(started, address)
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
        await pairing.close()
    found = Identity.from_certificate(credentials.certificate)
    return AgentIdentity(address.netloc, found.name, found.id)


def _refused(started: Started, address: Address) -> CliError:
    """Return the refusal of a machine without a token. Its request stays, and may be approved after all."""
    host = started.host or address.host
    return CliError(
        f"the coordinator at {address.netloc} lets machines in by a join token, and none was given",
        (
            f"on {host}: clusterd token create; then here: {TOKEN_VARIABLE}=... clusteragent enroll {address.netloc}",
            f"or on {host}: clusterd approve {started.code.code} (10 minutes); "
            f"then here again: clusteragent enroll {address.netloc} --name {started.name}",
        ),
        kind=Kind.WRONG_TOKEN,
    )


def _token(invocation: Invocation) -> JoinToken | None:
    """Return the join token in the environment, the one place where other users don't see it."""
    given = invocation.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        return read_token(given) if given else None
    except ValueError as error:
        raise UsageError(f"{TOKEN_VARIABLE}: {error}", ("clusterd token create prints one",)) from error


def _usual_address(known: AgentIdentity | None, join: JoinConfig) -> Address | None:
    if known is not None:
        return known.address
    return None if join.coordinator is None else join.coordinator.address


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
