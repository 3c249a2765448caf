"""``clusterd service`` and ``clusteragent service``: install, show and remove; the rest is systemctl's and its like."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from ..cli.dry_run import add_dry_run
from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from .choice import choose
from .manager import Installed, Manager
from .rehearsal import Rehearsal, Step
from .spec import Program, Scope, Spec, State, make_spec

_VERBS = ("install", "status", "uninstall")


class Report(State, frozen=True):
    """What ``service`` prints with --json: the service's state, and what is to be known or done."""

    notes: tuple[str, ...] = ()
    join: tuple[str, ...] = ()


class Rehearsed(msgspec.Struct, frozen=True):
    """What ``service --dry-run`` prints with --json: what would be done, in that order."""

    program: str
    manager: str
    scope: Scope
    would: tuple[Step, ...]
    notes: tuple[str, ...]
    dry_run: bool = True


class Role(NamedTuple):
    """What differs between the programs: *grace_s* of its jobs, *check* before a start, *told* after an installation.

    *told* returns the lines that end the output, which are ``join`` in JSON.
    """

    program: Program
    grace_s: Callable[[Spec], float]
    check: Callable[[Spec], None]
    told: Callable[[Spec, State], tuple[str, ...]]


class ServiceStart:
    """One ``service`` command, ready to start. Nothing in it needs a reactor."""

    def __init__(self, invocation: Invocation, role: Role, options: argparse.Namespace) -> None:
        self._invocation = invocation
        self._role = role
        self._options = options
        self._scope = Scope.SYSTEM if options.system else Scope.USER

    def at_once(self) -> int:
        """Do it and return the exit status. Raises ServiceError."""
        program, environ = self._role.program, self._invocation.environ
        spec = make_spec(program, self._scope, environ, run_as=self._options.run_as)
        manager = choose(environ, self._scope)
        if self._options.verb == "install":
            return self._install(manager, spec)
        if self._options.verb == "uninstall":
            return self._uninstall(manager, spec)
        return self._show(manager.status(spec))

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Needed for a command's type; `at_once` is always enough."""
        raise AssertionError("a service command needs no reactor")

    def _install(self, manager: Manager, spec: Spec) -> int:
        spec = spec._replace(stop_s=spec.stop_s + round(self._role.grace_s(spec)))
        start = not self._options.no_start
        if start:
            self._role.check(spec)
        if self._options.dry_run:
            rehearsal = manager.rehearse()
            return self._rehearsed(manager, spec, rehearsal, manager.install(spec, start=start).notes)
        installed = manager.install(spec, start=start)
        join = self._role.told(spec, installed.state)
        if self._invocation.json:
            return self._document(installed.state, installed.notes, join)
        console = self._invocation.console
        console.out_now(_installed_text(installed) + "".join(f"{line}\n" for line in join))
        for note in installed.notes:
            console.hint_now(note)
        return 0

    def _uninstall(self, manager: Manager, spec: Spec) -> int:
        if self._options.dry_run:
            rehearsal = manager.rehearse()
            return self._rehearsed(manager, spec, rehearsal, manager.uninstall(spec).notes)
        removed = manager.uninstall(spec)
        notes = (*removed.notes, *((f"its state stays in {spec.folder}",) if spec.folder.exists() else ()))
        if self._invocation.json:
            return self._document(manager.status(spec), notes, ())
        done = "Removed the service" if removed.known else "There is no service"
        self._invocation.console.out_now(f"{done} {spec.program.name} ({manager.kind}, {spec.scope}).\n")
        for note in notes:
            self._invocation.console.hint_now(note)
        return 0

    def _rehearsed(self, manager: Manager, spec: Spec, rehearsal: Rehearsal, notes: tuple[str, ...]) -> int:
        steps, console = rehearsal.steps, self._invocation.console
        if self._invocation.json:
            told = Rehearsed(spec.program.name, manager.kind, spec.scope, tuple(steps), notes)
            console.out_now(msgspec.json.encode(told) + b"\n")
            return 0
        which = f"the service {spec.program.name} ({manager.kind}, {spec.scope})"
        console.out_now("".join(map(str, steps)) or f"Nothing to do for {which}.\n")
        console.out_now("dry run: nothing was done\n")
        for note in notes:
            console.hint_now(note)
        return 0

    def _show(self, state: State) -> int:
        if self._invocation.json:
            self._document(state, (), ())
        else:
            self._invocation.console.out_now(_status_text(state))
        return 0 if state.running else 1

    def _document(self, state: State, notes: tuple[str, ...], join: tuple[str, ...]) -> int:
        report = Report(**msgspec.structs.asdict(state), notes=notes, join=join)
        self._invocation.console.out_now(msgspec.json.encode(report) + b"\n")
        return 0


def prepare(invocation: Invocation, arguments: tuple[str, ...], role: Role) -> ServiceStart:
    """Read the arguments of ``service``."""
    name = role.program.name
    words = ("install", "install --system --dry-run", "status", "uninstall")
    examples = tuple(f"{name} service {rest}" for rest in words)
    summary = f"Install {name} as a service that starts with the machine, show it, or remove it."
    parser = Parser(f"{name} service", summary, examples)
    parser.add_argument("verb", choices=_VERBS, metavar="VERB", help="install, status or uninstall")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", action="store_true", help="this user's own service (the default)")
    whose.add_argument("--system", action="store_true", help="the system's, which takes root")
    default = role.program.system_user
    parser.add_argument("--run-as", default="", metavar="USER", help=f"with --system: as whom it runs ({default})")
    parser.add_argument("--no-start", action="store_true", help="install it, and start it with the machine only")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if options.verb != "install" and options.no_start:
        raise UsageError(f"--no-start is for install, not {options.verb}", (f"{name} service --help",))
    if options.verb == "status" and options.dry_run:
        raise UsageError("--dry-run is for install and uninstall: status changes nothing", (f"{name} service --help",))
    return ServiceStart(invocation, role, options)


def _installed_text(installed: Installed) -> str:
    state = installed.state
    runs = f"It runs (process {state.pid})" if state.running else "It does not run yet"
    boot = ", and starts with the machine" if state.at_boot else ""
    return (
        f"Installed {state.program} as a {state.scope} service ({state.manager}): {state.definition}\n"
        f"{runs}{boot}. Log: {state.log}\n"
    )


def _status_text(state: State) -> str:
    def yes(value: bool) -> str:
        return "yes" if value else "no"

    if not state.installed:
        return f"service:  not installed ({state.manager}, {state.scope})\n"
    process = f" (process {state.pid})" if state.pid else ""
    return (
        f"service:  {state.definition} ({state.manager}, {state.scope})\n"
        f"runs:     {yes(state.running)}{process}, as {state.user}\n"
        f"at boot:  {yes(state.at_boot)}\n"
        f"log:      {state.log}\n"
    )
