"""Bare ``clustersh``: where one is, in under a kilobyte, for newcomers and for AI agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults

from .. import __version__
from ..cli.commands import Start
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.text import printable, shortened
from ..rest_client import Cause, RestClient, Unreachable
from ..wire.ids import short
from ..wire.rest import Job, JobPage, Machine, Machines, Whoami
from .client import connect
from .history import by_run
from .many.names import counted
from .outcome import status_words

_NAMES = 5
_NAMES_WIDTH = 100
_COMMAND_WIDTH = 40
_LINE_WIDTH = 130
_RUNNING = 2


class Overview(msgspec.Struct, frozen=True):
    """The ``--json`` form."""

    version: str
    name: str
    coordinator: str
    online: tuple[str, ...]
    offline: tuple[str, ...]
    running: tuple[Job, ...]
    last_failure: Job | None
    next: tuple[str, ...]


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of bare ``clustersh``."""
    Parser("clustersh", "Show who I am, which machines are up, and what to do next.", ("clustersh",)).read(
        invocation, arguments
    )
    return lambda reactor: bare(reactor, invocation)


async def bare(reactor: Any, invocation: Invocation) -> int:
    """Print the overview. Raises CliError naming the hop that is broken, and its one fix."""
    client = await connect(reactor, invocation)
    try:
        found = await _ask(client)
    except Unreachable as error:
        raise _broken(error, client) from error
    if invocation.json:
        await invocation.console.out(msgspec.json.encode(found) + b"\n")
    else:
        await invocation.console.out(_text(found, invocation.now()))
    return 0


async def _ask(client: RestClient) -> Overview:
    known = await client.call("GET", "/v1/whoami", answer=Whoami)
    mine = ("client", known.name)
    failures = ("failed", "interrupted", "timed-out")
    asked = (
        Deferred.fromCoroutine(_jobs(client, [mine, ("status", "requested"), ("status", "running"), ("limit", "20")])),
        Deferred.fromCoroutine(_jobs(client, [mine, *(("status", state) for state in failures), ("limit", "1")])),
    )
    machines = await client.call("GET", "/v1/machines", answer=Machines)
    running, failed = await gatherResults(asked, consumeErrors=True)
    up = tuple(machine.name for machine in machines.machines if machine.status == "online")
    down = tuple(machine.name for machine in machines.machines if machine.status != "online")
    last = failed[0] if failed else None
    return Overview(
        __version__, known.name, str(client.address), up, down, running, last, _next(machines.machines, up, last)
    )


async def _jobs(client: RestClient, query: Sequence[tuple[str, str]]) -> tuple[Job, ...]:
    return (await client.call("GET", "/v1/jobs", answer=JobPage, query=query)).jobs


def _next(machines: Sequence[Machine], up: Sequence[str], last: Job | None) -> tuple[str, ...]:
    """Return the three commands that help most from here."""
    if not machines:
        return ("clusteragent enroll http://COORDINATOR:5672   (on the machine to add)", "clustersh machines")
    if not up:
        return ("clusteragent   (on a machine that is offline)", "clustersh machines", "clustersh history")
    look = f"clustersh cat {last.machine} {short(last.uuid)}" if last is not None else "clustersh history"
    return (f'clustersh run {up[0]} "uname -a"', look, "clustersh --help")


def _text(found: Overview, now: float) -> str:
    running = by_run(found.running)
    lines = [
        f"clustersh {found.version}: run commands on other machines, each of them recorded",
        f"you: {found.name} at {found.coordinator}",
        f"online: {_names(found.online)}",
        f"offline: {_names(found.offline)}",
        *(f"running: {_jobs_of(jobs, now)}" for jobs in running[:_RUNNING]),
    ]
    if len(running) > _RUNNING:
        lines.append(f"running: and {len(running) - _RUNNING} more: clustersh history --status running")
    if found.last_failure is not None:
        lines.append(f"last failure: {_jobs_of([found.last_failure], now)}")
    lines += [f"next: {command}" for command in found.next]
    return "".join(shortened(printable(line), _LINE_WIDTH) + "\n" for line in lines)


def _names(names: Sequence[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(names[:_NAMES])
    more = f", +{len(names) - _NAMES}" if len(names) > _NAMES else ""
    return f"{len(names)} ({shortened(shown, _NAMES_WIDTH)}{more})"


def _jobs_of(jobs: Sequence[Job], now: float) -> str:
    """Return one run that goes on, by those of its jobs that do."""
    command = shortened(printable(jobs[0].command), _COMMAND_WIDTH)
    where = shortened(counted([job.machine for job in jobs]), _COMMAND_WIDTH)
    longest = min(jobs, key=lambda job: job.started or job.requested)
    return f"{short(jobs[0].uuid)} on {where}: {command} | {status_words(longest, now)}"


def _broken(error: Unreachable, client: RestClient) -> CliError:
    fixes = {
        Cause.IMPOSTOR: f"if that coordinator was set up anew: clustersh login --again {client.address}",
        Cause.NOT_ACCEPTED: f"ask it to let you in again: clustersh login --again {client.address}",
        Cause.NO_COORDINATOR: "log in at the right place: clustersh login --again http://HOST:5672",
        Cause.LOST: "try again; if it stays so, the coordinator's log says why",
    }
    fix = fixes.get(error.cause, error.hint)
    return CliError(f"the way to the coordinator is broken: {error}", (fix,) if fix else (), kind="unavailable")
