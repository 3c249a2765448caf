"""Executors: what turns a command into the argument vector of a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from zope.interface import Interface

from ...wire.jobs import Command


class ExecutorError(Exception):
    """The command can't be run here; the message says why, for people."""


class Task(msgspec.Struct, frozen=True):
    """What an executor is asked for.

    *cwd* is where the command runs; *scratch* a private folder for files that this takes, made by the executor if
    needed; *script* the content of the command's script, where it has one.
    """

    command: Command
    cwd: Path
    scratch: Path
    script: bytes | None = None


class IExecutor(Interface):
    """Turns commands into argument vectors."""

    def argv(task: Task) -> list[bytes]:
        """Return the argument vector for *task*, its first word the program's path.

        May write files into the scratch folder (private, so it is called in a thread where `writes` says so).
        Raises ExecutorError.
        """

    def writes(task: Task) -> bool:
        """Whether `argv` will write files."""


def choose(environ: Mapping[str, str], open_files: int | None = None) -> IExecutor:
    """Return this platform's executor, found by the PATH in *environ*. Raises ExecutorError.

    *open_files* is the soft limit on open files that commands get, where they shouldn't inherit the agent's.
    """
    if sys.platform == "win32":
        from .powershell import PowerShell

        return PowerShell.find(environ)
    from .bash import Bash

    return Bash.find(environ, open_files)
