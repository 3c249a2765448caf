"""``clustersh discover``: the tailnet's machines, which of them have an agent, and what would add the others."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..address import parse_address
from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..home import read_json
from ..tailscale_program import Report, look, shown
from ..wire.problems import Kind
from ..wire.rest import Machine, Machines
from ..wire.tailnet import TailnetNode, TailnetState, TailnetView
from .client import connect
from .machine_status import ago
from .state import LOGIN_FILE, Login, client_folder

HERE = "this host"
_AGENTS_FOR = ("linux", "macos", "windows")
_WORDS: dict[TailnetState, tuple[str, str]] = {
    TailnetState.MISSING: ("Tailscale is not installed on {host}", "install it there: https://tailscale.com/download"),
    TailnetState.STOPPED: ("Tailscale is stopped on {host}", "there: tailscale up"),
    TailnetState.LOGGED_OUT: ("Tailscale is logged out on {host}", "there: tailscale login"),
    TailnetState.UNAPPROVED: ("{host} waits to be let into its tailnet", "an admin of the tailnet approves it"),
    TailnetState.STARTING: ("Tailscale is only starting on {host}", "try again in some seconds"),
    TailnetState.NO_SERVICE: (
        "Tailscale's service does not run on {host}",
        "start it there; with systemd: sudo systemctl start tailscaled",
    ),
    TailnetState.FAILED: ("Tailscale can't be asked on {host}: {problem}", "see there: tailscale status"),
}


class Found(msgspec.Struct, frozen=True):
    """A node of the tailnet, and the *machine* that its agent serves here, if it has one."""

    name: str
    dns_name: str
    addresses: tuple[str, ...]
    os: str
    online: bool
    last_seen: str | None
    own: bool
    machine: str | None


class Discovery(msgspec.Struct, frozen=True):
    """The document. *host* is the one whose Tailscale told the nodes; the lines are what a node joins by."""

    host: str
    nodes: tuple[Found, ...]
    line: str
    powershell: str
    policy: str


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``discover``."""
    summary = "List the machines of the tailnet (Tailscale), which have an agent, and the line that adds the others."
    parser = Parser("clustersh discover", summary, ("clustersh discover", "clustersh discover --here"))
    parser.add_argument("--here", action="store_true", help="ask Tailscale on this host, not on the coordinator's")
    options = parser.read(invocation, arguments)
    return lambda reactor: discover(reactor, invocation, here=options.here)


async def discover(reactor: Any, invocation: Invocation, *, here: bool) -> int:
    """Print the table, and the line."""
    client = await connect(reactor, invocation)
    login = read_json(client_folder(invocation.home) / LOGIN_FILE, Login)
    query = [("address", parse_address(login.coordinator).netloc)] if login is not None else []
    told = await client.call("GET", "/v1/tailnet", answer=TailnetView, query=query)
    host, nodes = told.host, told.nodes
    if here or told.state is not TailnetState.RUNNING:
        program = shutil.which("tailscale", path=invocation.environ.get("PATH"))
        own = await look(reactor, program)
        if own.state is not TailnetState.RUNNING:
            raise _no_tailnet(own, None if here else told)
        host, nodes = HERE, shown(own.nodes)
    machines = (await client.call("GET", "/v1/machines", answer=Machines)).machines
    found = Discovery(host, match(nodes, machines), told.line, told.powershell, told.policy)
    await _print(invocation, found)
    return 0


def match(nodes: Sequence[TailnetNode], machines: Sequence[Machine]) -> tuple[Found, ...]:
    """Return *nodes* by name, each with its machine: the one that linked from an address of its, else the one whose
    name, or host's name, is the node's; a name that several have says nothing. The link of a machine that another
    one's agent carries comes from there."""
    by_address = {machine.address: machine.name for machine in machines if machine.carrier is None}
    linked = {by_address[address]: node for node in nodes for address in node.addresses if address in by_address}
    of_node = {id(node): machine for machine, node in linked.items()}
    others = [machine for machine in machines if machine.name not in linked]
    by_name = {
        **_only({machine.name: machine.facts.hostname for machine in others}),
        **_only({machine.name: machine.name for machine in others}),
    }
    names = Counter(_first(node.name) for node in nodes if id(node) not in of_node)
    return tuple(
        Found(
            name=node.name,
            dns_name=node.dns_name,
            addresses=node.addresses,
            os=node.os,
            online=node.online,
            last_seen=node.last_seen,
            own=node.own,
            machine=of_node.get(id(node))
            or (by_name.get(_first(node.name)) if names[_first(node.name)] == 1 else None),
        )
        for node in sorted(nodes, key=lambda node: (node.name, node.dns_name))
    )


def _only(names: Mapping[str, str]) -> dict[str, str]:
    """Return what has each of *names*, where nothing else has it."""
    count = Counter(map(_first, names.values()))
    return {_first(name): owner for owner, name in names.items() if count[_first(name)] == 1}


def _first(name: str) -> str:
    return name.partition(".")[0].lower()


def _no_tailnet(own: Report, told: TailnetView | None) -> CliError:
    """Return the error of there being no tailnet to ask: what the coordinator's host says comes first."""
    here, fix_here = (words.format(host=HERE, problem=own.problem) for words in _WORDS[own.state])
    if told is None:
        return CliError(here, (fix_here,), kind=Kind.UNAVAILABLE)
    message, fix = (words.format(host=told.host, problem=told.problem) for words in _WORDS[told.state])
    return CliError(message, (fix, f"or: {here} ({fix_here})"), kind=Kind.UNAVAILABLE)


async def _print(invocation: Invocation, found: Discovery) -> None:
    console, now = invocation.console, invocation.now()
    if invocation.json:
        await console.out(msgspec.json.encode(found) + b"\n")
        return
    alike = Counter(node.name for node in found.nodes)
    rows = [
        (node.name if alike[node.name] == 1 else node.dns_name, node.os, _status(node, now), node.machine or "-")
        for node in found.nodes
    ]
    await console.out(render_table(("node", "os", "status", "machine"), rows, console.width))
    without = {_system(node.os) for node in found.nodes if node.machine is None}
    if without & {"linux", "macos"}:
        await console.out(f"\nTo add a node (Linux, macOS), run there:\n{found.line}\n")
    if "windows" in without:
        await console.out(f"\nTo add a node (Windows), run there:\n{found.powershell}\n")
    if found.policy == "token" and without & set(_AGENTS_FOR):
        await console.hint("machines join by a token: an admin gets the line with one from clusterd invite --token")
    if found.policy == "approve" and without & set(_AGENTS_FOR):
        await console.hint("each shows a code, and waits until an admin has approved it: clusterd approve CODE")


def _system(os: str) -> str:
    return {"macos": "macos", "linux": "linux", "windows": "windows"}.get(os.lower(), "")


def _status(node: Found, now: float) -> str:
    if node.online:
        return "online"
    return f"offline (last seen {ago(node.last_seen, now)})" if node.last_seen else "offline"
