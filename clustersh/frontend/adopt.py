"""``clustersh adopt``: has an agent carry machines that only have SSH."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from typing import Any

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..cli.target_words import show
from ..cli.text import printable
from ..rest_client import RestClient
from ..wire.adopting import AdoptedAll, AdoptedMachine, AdoptFailed, AdoptMachine, SshHosts
from ..wire.ids import machine_name
from ..wire.problems import ProblemError
from .client import connect
from .together import together

EXAMPLES = (
    "clustersh adopt homelab-1",
    "clustersh adopt joshua@nas.lan --name nas --via ws1",
    "clustersh adopt --all --dry-run",
)
ADOPT_S = 90.0
AT_ONCE = 8
"""Machines that are adopted at the same time: one that can't be reached takes a while."""


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``adopt``."""
    parser = Parser("clustersh adopt", "Have an agent carry a machine that only has SSH.", EXAMPLES)
    parser.add_argument(
        "destination", nargs="?", metavar="HOST", help="as in the gateway's ~/.ssh/config, or USER@HOST"
    )
    parser.add_argument("--all", action="store_true", help="every host that the gateway's ~/.ssh/config names")
    parser.add_argument("--name", type=reads(machine_name), help="what the machine is called (as its host)")
    parser.add_argument("--via", metavar="MACHINE", default="", help="which machine's agent is to carry it")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if options.all == bool(options.destination):
        raise UsageError("adopt which machine?", ("clustersh adopt HOST, or clustersh adopt --all",))
    if options.all and options.name:
        raise UsageError("--name is for one machine, --all for many")
    return lambda reactor: adopt(reactor, invocation, options)


async def adopt(reactor: Any, invocation: Invocation, options: Namespace) -> int:
    """Adopt it, or all; the exit status is 1 where one of several can't be."""
    client = await connect(reactor, invocation)
    if options.all:
        return await _adopt_all(client, invocation, options)
    done = await _adopt(client, options, options.destination)
    await show(invocation, AdoptedAll((done,)), _line(done))
    return 0


async def _adopt_all(client: RestClient, invocation: Invocation, options: Namespace) -> int:
    found = await client.call("GET", "/v1/adopt/hosts", answer=SshHosts, query=[("via", options.via)])
    hosts, adopted, failed = deque(found.hosts), list[AdoptedMachine](), list[AdoptFailed]()

    async def work() -> None:
        while hosts:
            host = hosts.popleft()
            try:
                done = await _adopt(client, options, host)
            except ProblemError as error:
                problem = error.problem
                failed.append(AdoptFailed(host, problem.detail, problem.hint or None))
                if not invocation.json:
                    hints = "".join(f"hint: {printable(line)}\n" for line in problem.hint.splitlines())
                    await invocation.console.err(f"{printable(host)}: {printable(problem.detail)}\n{hints}")
            else:
                adopted.append(done)
                if not invocation.json:
                    await invocation.console.out(_line(done))

    await together(work() for _ in range(min(AT_ONCE, len(hosts))))
    if invocation.json:
        await show(invocation, AdoptedAll(tuple(adopted), tuple(failed)), "")
    elif not found.hosts:
        await invocation.console.err(f"There is no host in ~/.ssh/config on {found.via}.\n")
    return 1 if failed else 0


async def _adopt(client: RestClient, options: Namespace, destination: str) -> AdoptedMachine:
    body = AdoptMachine(destination, options.name or "", options.via, options.dry_run)
    return await client.call("POST", "/v1/adopt", body, answer=AdoptedMachine, timeout_s=ADOPT_S)


def _line(done: AdoptedMachine) -> str:
    if done.already:
        return f"{done.machine}: adopted already, via {done.via}.\n"
    verb = "Would adopt" if done.dry_run else "Adopted"
    return f"{verb} {done.machine}, via {done.via}.\n"
