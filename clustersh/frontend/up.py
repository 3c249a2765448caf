"""``clustersh up`` and ``down``: everything on this machine, to try it out or for a home lab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..address import DEFAULT_PORT, Address, parse_address
from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import CliError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, reads
from ..cli.text import printable
from ..config import Listen, load, parse_listen
from ..home import read_json, write_json
from ..rest_client import RestClient
from ..trust.tokens import TOKEN_VARIABLE
from ..wire.ids import machine_name
from ..wire.rest import Machines
from .client import connect
from .login import LoggedIn, default_name, finish, logged_in, user_name
from .programs import AGENT, COORDINATOR, Program, Programs, check_free
from .session import approve_line, new_pairing
from .state import client_folder

UP_FILE = "up.json"
ONLINE_S = 30.0
_LOOK_S = 0.1
_TOKEN = re.compile(r"[0-9a-f]+-[0-9a-f]+")
_APPROVE = re.compile(r"clusterd approve ([0-9a-f]{8})\b")


class UpState(msgspec.Struct, frozen=True):
    """``up.json``: where the coordinator listened last, so that the next `up` finds its clients again."""

    listen: str


class _Enrolled(msgspec.Struct, frozen=True):
    """What is read of the agent's ``agent.json``."""

    coordinator: str
    machine: str


class Options(NamedTuple):
    """What was asked for; None where nothing was."""

    listen: Listen | None
    port: int | None
    name: str | None

    @property
    def chosen(self) -> bool:
        """Whether the address was chosen."""
        return self.listen is not None or self.port is not None

    def where(self, home: Path) -> Listen:
        """Return where to listen: as asked, else as the last time, else on loopback."""
        last = read_json(home / UP_FILE, UpState)
        base = self.listen or Listen(last.listen if last is not None else f"127.0.0.1:{DEFAULT_PORT}")
        return base if self.port is None else Listen(f"{base.rpartition(':')[0]}:{self.port}")


def prepare_up(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``up``."""
    examples = ("clustersh up", "clustersh up --port 5673", "clustersh up --listen '*:5672' --name joshua-ws1")
    parser = Parser("clustersh up", "Start a coordinator and an agent here, and log in.", examples)
    parser.add_argument("--port", type=reads(_port), help="the port to listen on (5672)")
    parser.add_argument("--listen", type=reads(parse_listen), metavar="ADDRESS", help="host:port (127.0.0.1:5672)")
    parser.add_argument("--name", type=reads(machine_name), help="what this machine is called")
    add_dry_run(parser)
    given = parser.read(invocation, arguments)
    options = Options(given.listen, given.port, given.name)
    return lambda reactor: (would_start if given.dry_run else start)(reactor, invocation, options)


def prepare_down(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``down``."""
    parser = Parser("clustersh down", "Stop the coordinator and the agent that run here.", ("clustersh down",))
    add_dry_run(parser)
    given = parser.read(invocation, arguments)
    return lambda reactor: (would_stop if given.dry_run else down)(reactor, invocation)


async def start(reactor: Any, invocation: Invocation, options: Options) -> int:
    """Start what doesn't run yet, showing each step."""
    return await _Up(reactor, invocation, options).run()


async def would_start(reactor: Any, invocation: Invocation, options: Options) -> int:
    """Say what `start` would start, and where. Raises CliError where the port is taken."""
    programs, folder = Programs(reactor, invocation.home, invocation.environ), client_folder(invocation.home)
    running = programs.running(COORDINATOR)
    listen = running.address if running is not None else options.where(invocation.home)
    if running is None:
        check_free(Listen(listen))
    missing = [program.script for program in (COORDINATOR, AGENT) if programs.running(program) is None]
    steps = [f"start {' and '.join(missing)}"] if missing else []
    steps += ["log in"] if logged_in(folder) is None else []
    would = f"{' and '.join(steps)} (the coordinator at {listen})" if steps else f"start nothing: it runs at {listen}"
    return await tell(invocation, would, coordinator=str(listen), would_start=missing)


class _Up:
    def __init__(self, reactor: Any, invocation: Invocation, options: Options) -> None:
        self._reactor = reactor
        self._invocation = invocation
        self._options = options
        self._home = invocation.home
        self._programs = Programs(reactor, invocation.home, invocation.environ)
        self._approvals: list[Deferred[None]] = []

    async def run(self) -> int:
        if all(self._programs.running(program) is not None for program in (COORDINATOR, AGENT)):
            return await self._runs_already()
        address = await self._coordinator()
        machine = await self._agent(address)
        await self._log_in(address)
        await self._until_online(machine)
        return await self._done(address, machine, started=True)

    async def _runs_already(self) -> int:
        coordinator, agent = self._programs.running(COORDINATOR), self._programs.running(AGENT)
        assert coordinator is not None and agent is not None
        address = parse_address(coordinator.address)
        where = f"coordinator at {address} (process {coordinator.pid}), agent (process {agent.pid})"
        await self._say(f"Already running: {where}.")
        if self._options.chosen or self._options.name:
            await self._invocation.console.hint("nothing was changed; to start it otherwise, first: clustersh down")
        if logged_in(client_folder(self._home)) is None:
            await self._log_in(address)
        enrolled = read_json(self._home / AGENT.folder / "agent.json", _Enrolled)
        return await self._done(address, enrolled.machine if enrolled else "", started=False)

    async def _coordinator(self) -> Address:
        running = self._programs.running(COORDINATOR)
        if running is not None:
            await self._say(f"The coordinator runs already, at {running.address} (process {running.pid}).")
            return parse_address(running.address)
        listen = self._options.where(self._home)
        check_free(listen)
        user = user_name(self._invocation)
        await self._say(
            f"One trust domain: the coordinator, the agent and every command run here as {user},\n"
            "so whoever may run a command can also read the coordinator's keys."
        )
        await self._say(f"$ clusterd --listen {listen}   (log: {self._programs.log(COORDINATOR)})")
        running = await self._programs.start(COORDINATOR, "--listen", listen)
        address = parse_address(running.address)
        write_json(self._home / UP_FILE, UpState(f"{listen.rpartition(':')[0]}:{address.port}"))
        return address

    async def _agent(self, address: Address) -> str:
        path = self._home / AGENT.folder / "agent.json"
        enrolled = read_json(path, _Enrolled)
        if enrolled is None or enrolled.coordinator != address.netloc:
            named = ["--name", self._options.name] if self._options.name else []
            again = ["--again"] if enrolled is not None else []
            token = await self._token() if load(self._home).enrollment.policy == "token" else {}
            await self._visibly(AGENT, "enroll", address.netloc, *named, *again, **token)
            enrolled = read_json(path, _Enrolled)
            if enrolled is None:
                hint = f"once by hand: clusteragent enroll {address.netloc}"
                raise CliError(f"the agent did not enroll: there is no {path}", (hint,))
        if self._programs.running(AGENT) is None:
            await self._say(f"$ clusteragent   (log: {self._programs.log(AGENT)})")
            await self._programs.start(AGENT)
        return enrolled.machine

    async def _log_in(self, address: Address) -> None:
        present = logged_in(client_folder(self._home))
        if present is not None and present.address == address:
            return
        name = present.name if present is not None else default_name(self._invocation)
        pairing = new_pairing(self._reactor, self._invocation, address)
        started = await pairing.start(name)
        if not started.approved:
            await self._say(approve_line(name, started.host, started.code.code))
            await self._visibly(COORDINATOR, "approve", started.code.code)
        credentials = await pairing.wait()
        known = await finish(self._reactor, self._invocation, pairing, credentials, LoggedIn(name, address))
        await self._say(f"Logged in as {known.name}.")

    async def _until_online(self, machine: str) -> None:
        client: RestClient = await connect(self._reactor, self._invocation)
        for _ in range(round(ONLINE_S / _LOOK_S)):
            found = (await client.call("GET", "/v1/machines", answer=Machines)).machines
            if any(each.name == machine and each.status == "online" for each in found):
                return
            await deferLater(self._reactor, _LOOK_S)
        raise CliError(
            f"the agent of {machine} did not connect within {ONLINE_S:g}s", (f"its log: {self._programs.log(AGENT)}",)
        )

    async def _done(self, address: Address, machine: str, *, started: bool) -> int:
        present = logged_in(client_folder(self._home))
        if self._invocation.json:
            document = {"coordinator": address.netloc, "machine": machine, "started": started}
            client = present.name if present is not None else None
            await self._invocation.console.out(msgspec.json.encode({**document, "client": client}) + b"\n")
            return 0
        await self._say(f'Go on:  clustersh run {machine} "uname -a"\nStop:   clustersh down')
        return 0

    async def _token(self) -> dict[str, str]:
        """Return what has the environment of an enrollment say that this machine is wanted."""
        await self._say("$ clusterd token create --ttl 5m")
        lines: list[str] = []
        await self._programs.run(COORDINATOR, "token", "create", "--ttl", "5m", on_line=lines.append)
        return {TOKEN_VARIABLE: next(line for line in lines if _TOKEN.fullmatch(line))}

    async def _visibly(self, program: Program, *arguments: str, **environ: str) -> None:
        """Show a command, run it, show what it says, and approve what it asks for."""
        await self._say(f"$ {program.script} {' '.join(arguments)}")
        await self._programs.run(program, *arguments, on_line=self._show_line, environ=environ)
        for approval in self._approvals:
            await approval
        self._approvals.clear()

    def _show_line(self, line: str) -> None:
        self._approvals.append(Deferred.fromCoroutine(self._say(printable(line))))
        found = _APPROVE.search(line)
        if found:
            self._approvals.append(Deferred.fromCoroutine(self._approve(found[1])))

    async def _approve(self, code: str) -> None:
        await self._say(f"$ clusterd approve {code}")
        shown: list[Deferred[None]] = []
        await self._programs.run(
            COORDINATOR,
            "approve",
            code,
            on_line=lambda line: shown.append(Deferred.fromCoroutine(self._say(printable(line)))),
        )
        for one in shown:
            await one

    async def _say(self, text: str) -> None:
        console = self._invocation.console
        await (console.err(text + "\n") if self._invocation.json else console.out(text + "\n"))


async def would_stop(reactor: Any, invocation: Invocation) -> int:
    """Say what `down` would stop."""
    programs = Programs(reactor, invocation.home, invocation.environ)
    there = {program.script: programs.running(program) for program in (AGENT, COORDINATOR)}
    pids = {script: running.pid if running is not None else None for script, running in there.items()}
    named = [f"{script} (process {pid})" for script, pid in pids.items() if pid is not None]
    would = f"stop {' and '.join(named)}" if named else f"stop nothing: nothing runs in {invocation.home}"
    return await tell(invocation, would, would_stop=pids)


async def down(reactor: Any, invocation: Invocation) -> int:
    """Stop both, the agent first: it ends its jobs and reports them."""
    programs = Programs(reactor, invocation.home, invocation.environ)
    stopped: dict[str, int | None] = {}
    for program in (AGENT, COORDINATOR):
        was = await programs.stop(program)
        stopped[program.script] = was.pid if was is not None else None
        if was is not None and not invocation.json:
            await invocation.console.out(f"Stopped {program.script} (process {was.pid}).\n")
    if invocation.json:
        await invocation.console.out(msgspec.json.encode({"stopped": stopped}) + b"\n")
    elif not any(stopped.values()):
        await invocation.console.out(f"Nothing runs here (in {invocation.home}).\n")
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is no port: 1 to 65535")
    return int(text)
