"""Commands as a line of shell for the other side of an ssh connection: what `scripts.JOB` takes first.

It goes through stdin, because values of the environment have no business in anybody's argument vector.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..executors import ExecutorError, Task
from ..executors.bash import LONGEST_ARGUMENT
from ..tree import MARK_JOB, MARK_MACHINE
from .checks import SCRIPT, is_probe, words_for

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"~[A-Za-z_][A-Za-z0-9_.-]*")


class Place(NamedTuple):
    """Where a job runs there; what came with it is in *folder* (words of shell)."""

    machine: str
    folder: str


def quoted(text: str) -> str:
    """Return *text* as one word of shell, in one line: $1 is a line's end there."""
    return "'" + text.replace("'", "'\"'\"'").replace("\n", "'\"$1\"'") + "'"


def is_staged(task: Task) -> bool:
    """Whether the command has to be a file there."""
    return task.script is not None or len((task.command.shell or "").encode("utf-8", "replace")) > LONGEST_ARGUMENT


def header(mark: str, task: Task, place: Place) -> bytes:
    """Return the line for *task*. Raises ExecutorError where it can't be said.

    What it needs is taken before the environment is set, which may change any variable.
    """
    parts = [
        f'set -- "$1" "$2" {quoted(mark)} {int(task.stdin)} {_where(task, place.folder)} {place.folder}',
        *(_export(name, value) for name, value in task.env.items()),
        _export(MARK_JOB, task.uuid),
        _export(MARK_MACHINE, place.machine),
        f"c() {{ {_run(task)}; }}",
    ]
    return "; ".join(parts).encode("utf-8", "surrogateescape")


def _export(name: str, value: str) -> str:
    if not _NAME.fullmatch(name):
        raise ExecutorError(f"over ssh, no environment variable can be called {name!r}")
    return f"export {name}={quoted(value)}"


def _where(task: Task, folder: str) -> str:
    cwd, base = task.asked_cwd, '"$HOME"' if task.files is None else f"{folder}/files"
    if not cwd:
        return base
    if cwd.startswith("~"):
        user, slash, rest = cwd.partition("/")
        if user != "~" and not _USER.fullmatch(user):
            raise ExecutorError(f"no such user: {cwd}")
        home = '"$HOME"' if user == "~" else user
        return f"{home}/{quoted(rest)}" if slash else home
    return quoted(cwd) if cwd.startswith("/") else f"{base}/{quoted(cwd)}"


def _run(task: Task) -> str:
    if is_staged(task):
        content = task.script or b""
        return f"""exec {"" if content.startswith(b"#!") else '"$2" '}"$6/command\""""
    if is_probe(task.command.argv):
        words = " ".join(map(quoted, words_for(task.command.argv or ())))
        return f'exec "$2" -c {quoted(SCRIPT)} probe {words}'
    if task.command.argv is not None:
        words = " ".join(map(quoted, task.command.argv))
        return f"""exec "$2" -c 'exec "$@"' "${{2##*/}}" {words}"""
    return f'exec "$2" -c {quoted(task.command.shell or "")} "${{2##*/}}"'
