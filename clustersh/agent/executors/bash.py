"""Commands by bash, or by ``sh`` where there is none.

The working directory is set by a shell prologue: giving it to the spawn call would force a slow fork. The prologue
stands on the command's first line, so that error messages name the line the user wrote, and is left out where the
agent itself is in that directory. It also gives the command the limit on open files back that the agent was started
with: a program that closes, or selects on, all that it might have open must not meet the agent's own.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from zope.interface import implementer

from ...home import private_folder
from . import ExecutorError, IExecutor, Task
from .own import own_words

LONGEST_ARGUMENT = 100 << 10
"""Bytes; one argument may hold 128 KiB on Linux. A longer command goes into a file."""
NO_DIRECTORY = 125
"""Exit status where the working directory went away after it was looked at."""


@implementer(IExecutor)
class Bash:
    """Runs shell lines, argument vectors and scripts by the shell at *shell*, which inherits the directory *here*.

    *open_files* is the soft limit that commands get; None: the agent's own.
    """

    name = "bash"

    def __init__(self, shell: str, here: Path | None = None, open_files: int | None = None) -> None:
        self._shell = os.fsencode(shell)
        self._name = os.fsencode(Path(shell).name)
        self._here = here
        self._limit = b"" if open_files is None else b"ulimit -S -n %d; " % open_files

    @classmethod
    def find(cls, environ: Mapping[str, str], open_files: int | None = None) -> Bash:
        """Return the executor for this machine's bash or sh. Raises ExecutorError."""
        for name in ("bash", "sh"):
            found = shutil.which(name, path=environ.get("PATH")) or shutil.which(name, path=os.defpath)
            if found:
                return cls(found, Path.cwd(), open_files)
        raise ExecutorError("there is no bash and no sh on this machine's PATH")

    def writes(self, task: Task) -> bool:
        """A script, or a line too long for an argument, is written to a file."""
        return task.script is not None or _is_long(task)

    def argv(self, task: Task) -> list[bytes]:
        """Return the shell's argument vector for *task*."""
        if task.script is not None:
            run = b'exec "$@"' if task.script.startswith(b"#!") else b'exec "$0" "$@"'
            return self._run(task, run, [_write(task.scratch / "script", task.script)])
        if task.command.argv is not None:
            words = [word.encode("utf-8", "surrogateescape") for word in own_words(task.command.argv)]
            return self._run(task, b'exec -- "$@"' if self._name == b"bash" else b'exec "$@"', words)
        line = (task.command.shell or "").encode("utf-8", "surrogateescape")
        if _is_long(task):
            return self._run(task, b'exec "$0" "$@"', [_write(task.scratch / "command", line)])
        return [self._shell, b"-c", self._prologue(task) + line, self._name]

    def _run(self, task: Task, line: bytes, words: list[bytes]) -> list[bytes]:
        # What the line calls $0 is also the name that the shell's own error messages begin with.
        name = self._name if b"$0" not in line else self._shell
        return [self._shell, b"-c", self._prologue(task) + line, name, *words]

    def _prologue(self, task: Task) -> bytes:
        if task.cwd == self._here:
            return self._limit
        return self._limit + b"cd -- %s || exit %d; " % (os.fsencode(shlex.quote(str(task.cwd))), NO_DIRECTORY)


def _is_long(task: Task) -> bool:
    return task.command.shell is not None and len(task.command.shell.encode("utf-8", "replace")) > LONGEST_ARGUMENT


def _write(path: Path, content: bytes) -> bytes:
    private_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return os.fsencode(path)
