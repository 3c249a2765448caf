"""What every manager of services does: put a definition in its place, have it started, look, take it away."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

from .. import __version__
from ..cli.text import printable
from . import definition, users
from .commands import Commands
from .errors import ServiceError, cannot
from .hands import Hands
from .rehearsal import Rehearsal
from .spec import Scope, Spec, State
from .watch import Watch

_TAIL_BYTES = 64 << 10


class Installed(NamedTuple):
    """What an installation came to; *notes* say what is to be known or done about it."""

    state: State
    notes: tuple[str, ...] = ()


class Removed(NamedTuple):
    """What a removal came to: whether there was a service, and what is left to do."""

    known: bool
    notes: tuple[str, ...] = ()


class Look(NamedTuple):
    """What a manager knows of a service."""

    at_boot: bool = False
    running: bool = False
    pid: int | None = None


class Manager(ABC):
    """Installs, shows and removes services; everything else is the operating system's own tools' to do.

    *root* is the file system's; *uid* is who asks, and *user_home* that user's home.
    """

    kind: ClassVar[str]
    mode: ClassVar[int] = 0o644

    def __init__(self, commands: Commands, watch: Watch, *, root: Path, user_home: Path, uid: int) -> None:
        self._commands = commands
        self._hands = Hands(commands)
        self._watch = watch
        self._root = root
        self._user_home = user_home
        self._uid = uid

    def rehearse(self) -> Rehearsal:
        """Change nothing from now on; return what notes what would be done."""
        rehearsal = Rehearsal(self._commands)
        self._hands, self._watch = rehearsal, self._watch.unhurried()
        return rehearsal

    def install(self, spec: Spec, *, start: bool = True, restart: bool = False) -> Installed:
        """Install the service, or repair it, and return it running (with *start*).

        One that runs as it should already is left alone, unless *restart* is asked for: its jobs would end. What can't
        be brought up is taken away again, if it is new. Raises ServiceError.
        """
        self._check(spec)
        path = self.definition(spec)
        known = bool(definition.read(path))
        if start and not known:
            self._check_free(spec)
        self._hands.make_home(spec)
        changed = self._hands.write(path, self.render(spec), mode=self.mode)
        try:
            notes = self._enable(spec, changed=changed)
            if start:
                self._bring_up(spec, again=restart or changed)
        except BaseException:
            if not known:
                with contextlib.suppress(ServiceError):
                    self.uninstall(spec)
            raise
        return Installed(self.status(spec), notes)

    def status(self, spec: Spec) -> State:
        """Return how the service is. Raises ServiceError."""
        path = self.definition(spec)
        installed = bool(definition.read(path))
        look = self._look(spec) if installed else Look()
        return State(
            program=spec.program.name,
            manager=self.kind,
            scope=spec.scope,
            installed=installed,
            at_boot=look.at_boot,
            running=look.running,
            pid=look.pid,
            user=spec.user,
            definition=os.fspath(path),
            log=self.log(spec),
        )

    def uninstall(self, spec: Spec) -> Removed:
        """End the service and remove it; its state stays. Raises ServiceError."""
        self._check(spec)
        path = self.definition(spec)
        was = definition.read(path)
        if not was:
            return Removed(False)
        self._end(spec)
        self._hands.remove(path)
        return Removed(True, self._clean_up(spec, was))

    def _bring_up(self, spec: Spec, *, again: bool) -> None:
        running = self._watch.running(spec)
        again = again or (running is not None and running.version not in ("", __version__))
        self._start(spec, again=again)
        if self._watch.until_up(spec, lambda: self._failed(spec)) is None:
            words = self._last_words(spec)
            raise ServiceError(
                f"{spec.program.name} did not start{': ' + printable(words) if words else ''}",
                (f"its log: {self.log(spec)}",),
                kind="unavailable",
            )

    def _check_free(self, spec: Spec) -> None:
        """Raise ServiceError where the program runs already, started by other means: a second one could not start."""
        running = self._watch.running(spec)
        if running is not None:
            raise ServiceError(
                f"{spec.program.name} runs already (process {running.pid}), and not as a service",
                ("end that one first (clustersh down, or Ctrl-C where it was started), then the same again",),
                kind="unavailable",
            )

    def _check(self, spec: Spec) -> None:
        """Raise ServiceError where this user can't do that at all."""
        if spec.scope is Scope.SYSTEM and self._uid != 0:
            raise ServiceError(
                "a system service is root's to install and remove",
                (f"the same with sudo, or for this user alone: {spec.program.name} service ... --user",),
                kind="policy",
            )

    @abstractmethod
    def definition(self, spec: Spec) -> Path:
        """Return where the service's definition is."""

    @abstractmethod
    def render(self, spec: Spec) -> bytes:
        """Return what the definition holds."""

    @abstractmethod
    def log(self, spec: Spec) -> str:
        """Return where the service's log is: a command that shows it, or a file."""

    @abstractmethod
    def _enable(self, spec: Spec, *, changed: bool) -> tuple[str, ...]:
        """Make the written definition known, to be started with the machine; return what is to be said of that."""

    @abstractmethod
    def _start(self, spec: Spec, *, again: bool) -> None:
        """Start it; one that runs is only with *again* started anew."""

    @abstractmethod
    def _look(self, spec: Spec) -> Look:
        """Return how the installed service is."""

    @abstractmethod
    def _end(self, spec: Spec) -> None:
        """Stop it, and have it started no more."""

    @abstractmethod
    def _clean_up(self, spec: Spec, was: str) -> tuple[str, ...]:
        """The definition, which *was* that, is gone: take away what else came with it; return what is left to do."""

    def _failed(self, spec: Spec) -> bool:
        """Whether it is known that it won't come up."""
        return False

    def _last_words(self, spec: Spec) -> str:
        """Return what the service said of why it didn't start; "" where nothing is known."""
        return ""


def remove_logs(hands: Hands, spec: Spec, *others: Path) -> None:
    """Remove what the service logged, and *others* of its files. Raises ServiceError."""
    with users.acting_as(spec):
        try:
            logs = spec.logs
        except OSError as error:
            raise cannot("look into", spec.folder, error) from error
        hands.remove(*logs, *others)


def error_in(log: str) -> str:
    """Return the last error that a service's *log* tells: its ``ERROR:`` line, or why it can't start."""
    found = ""
    for line in log.splitlines():
        if "ERROR: " in line:
            found = line.partition("ERROR: ")[2]
        elif "can't start: " in line:
            found = line.partition("can't start: ")[2]
    return found.strip()


def last_error(spec: Spec, log: Path) -> str:
    """As `error_in`, of the end of a file that *spec* logs to; "" where it can't be read."""
    try:
        with users.acting_as(spec), log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return error_in(file.read(_TAIL_BYTES).decode("utf-8", "replace"))
    except OSError:
        return ""
