"""Which executor this machine's commands run by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from ...plugins import by_name, installed
from . import ExecutorError, IExecutor, Task

OF_PLATFORM = "powershell" if sys.platform == "win32" else "bash"
"""The executor where none is configured."""
OF_ADOPTED = "ssh"
"""The executor that each adopted machine has, and no other can."""
log = Logger()


def choose(name: str | None, environ: Mapping[str, str], open_files: int | None = None) -> IExecutor:
    """Return the executor *name* (None: this platform's), found by the PATH in *environ*.

    *open_files* is the soft limit on open files that commands get, where they shouldn't inherit the agent's. Raises
    ExecutorError where this machine lacks what a built-in one needs; where it can't have one that is named, what is
    returned refuses every command.
    """
    wanted = name or OF_PLATFORM
    built_in = _BUILT_IN.get(wanted)
    if built_in is not None:
        return built_in(environ, open_files)
    return find_plugin(wanted, installed(IExecutor))


def find_plugin(name: str, plugins: Iterable[Any]) -> IExecutor:
    """Return that of *plugins* with that name, or what refuses every command."""
    found = by_name("an executor", plugins, _BUILT_IN)
    if name in found:
        executor: IExecutor = found[name]
        return executor
    known = ", ".join(sorted({*_BUILT_IN, *found} - {OF_ADOPTED}))
    return Refusing(
        name,
        f"this machine has no executor {name!r}, as [agent] executor says; there are: {known} "
        "(the agent's log names plugins that can't be loaded)",
    )


@implementer(IExecutor)
class Refusing:
    """Stands for one that can't be had: the agent serves, and says *why* of every command."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why
        log.critical("no command can run: {why}", why=why)

    def writes(self, task: Task) -> bool:
        """It writes nothing."""
        return False

    def argv(self, task: Task) -> list[bytes]:
        """Refuse."""
        raise ExecutorError(self.why)


def _bash(environ: Mapping[str, str], open_files: int | None) -> IExecutor:
    from .bash import Bash

    return Bash.find(environ, open_files)


def _powershell(environ: Mapping[str, str], open_files: int | None) -> IExecutor:
    from .powershell import PowerShell

    return PowerShell.find(environ)


def _ssh(environ: Mapping[str, str], open_files: int | None) -> IExecutor:
    why = (
        f"[agent] executor can't be {OF_ADOPTED!r}: that runs the commands of machines that are adopted (clustersh "
        f"adopt), and none of this machine's own; without it in config.toml, those run by {OF_PLATFORM}"
    )
    return Refusing(OF_ADOPTED, why)


_BUILT_IN: dict[str, Callable[[Mapping[str, str], int | None], IExecutor]] = {
    "bash": _bash,
    "powershell": _powershell,
    OF_ADOPTED: _ssh,
}
