"""What a service is, whatever manages it: which program, for whom, as whom, on which state."""

from __future__ import annotations

import enum
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..home import default_home, user_name
from .errors import ServiceError

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,62}\$?")
_SPARE_S = 30
"""What a service gets to end in; the grace of its jobs comes on top."""


class Scope(enum.StrEnum):
    """Whose service it is: one *user*'s, in that user's own session and folders, or the whole *system*'s."""

    USER = "user"
    SYSTEM = "system"


class Program(NamedTuple):
    """One of the two services: its console script, what it is, its folder in the state directory, its defaults."""

    name: str
    title: str
    folder: str
    system_home: str
    system_user: str


COORDINATOR = Program("clusterd", "clustersh coordinator", "coordinator", "clustersh", "clusterd")
AGENT = Program("clusteragent", "clustersh agent", "agent", "clustersh-agent", "root")


class Spec(NamedTuple):
    """A service to be. *executable* is the program, *home* the state directory, *user* whom it runs as.

    *stop_s* is how long it may take to end before it is killed.
    """

    program: Program
    scope: Scope
    executable: Path
    home: Path
    user: str
    stop_s: int = 60

    @property
    def folder(self) -> Path:
        """Where the service has its own state."""
        return self.home / self.program.folder

    @property
    def log(self) -> Path:
        """Where it logs, where nothing else keeps logs."""
        return self.folder / "log"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The log and the older ones that are kept beside it."""
        return (self.log, *self.folder.glob(f"{self.log.name}.[0-9]*"))


class State(msgspec.Struct, frozen=True):
    """What is known of a service: ``service status --json``. *at_boot*: it starts with the machine or the login."""

    program: str
    manager: str
    scope: Scope
    installed: bool
    at_boot: bool
    running: bool
    pid: int | None
    user: str
    definition: str
    log: str


def make_spec(
    program: Program,
    scope: Scope,
    environ: Mapping[str, str],
    *,
    run_as: str = "",
    prefix: Path | None = None,
) -> Spec:
    """Return the service of *program* that this installation (in *prefix*) can be. Raises ServiceError.

    *run_as* is for system services; without it the user who has the state there already, or else the default.
    """
    if run_as and scope is Scope.USER:
        raise ServiceError("--run-as is for --system: a user's service runs as that user", kind="bad-request")
    if run_as and not _USER.fullmatch(run_as):
        raise ServiceError(f"{run_as!r} is no user's name", kind="bad-request")
    home = _system_home(program, environ) if scope is Scope.SYSTEM else default_home(environ)
    user = run_as or (_system_user(program, home) if scope is Scope.SYSTEM else user_name() or str(os.getuid()))
    executable = find_executable(program.name, prefix or Path(sys.prefix))
    for path in (home, executable):
        if not str(path).isprintable():
            raise ServiceError(f"{str(path)!r}: a service's path has no control characters", kind="bad-request")
    return Spec(program, scope, executable, home, user, _SPARE_S)


def find_executable(name: str, prefix: Path) -> Path:
    """Return the program *name* of the venv *prefix*, by the link to the current version where there is one."""
    current = prefix.parent.parent / "current"
    if prefix.parent.name == "versions" and current.is_symlink() and current.resolve() == prefix.resolve():
        prefix = current
    found = prefix / ("Scripts" if os.name == "nt" else "bin") / (f"{name}.exe" if os.name == "nt" else name)
    if not found.exists():
        raise ServiceError(
            f"there is no {found}", ("install clustersh with uv tool, pipx, pip in a venv, or its installer",)
        )
    return found


def find_twistd(executable: Path) -> Path:
    """Return the twistd of the installation that the program *executable* is of. Raises ServiceError."""
    for folder in (executable.parent, Path(os.path.realpath(executable)).parent, Path(sys.prefix, "bin")):
        if (folder / "twistd").exists():
            return folder / "twistd"
    raise ServiceError(f"there is no twistd beside {executable}", ("install clustersh again, Twisted with it",))


def owner_of(path: Path) -> str:
    """Return whose *path* is: a name, or a number where it has none; "" where there is no such path."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)
    except OSError:
        return ""


def _system_user(program: Program, home: Path) -> str:
    """Return as whom the service was installed; the default where it wasn't, or its state is root's by accident."""
    owner = owner_of(home)
    return owner if owner not in ("", "root") and _USER.fullmatch(owner) else program.system_user


def _system_home(program: Program, environ: Mapping[str, str]) -> Path:
    if environ.get("CLUSTERSH_HOME"):
        return default_home(environ)
    if os.name == "nt":
        return Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / program.system_home
    return Path("/var/lib") / program.system_home
