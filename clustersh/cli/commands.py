"""A program's table of commands: only the module of the one that was typed is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from .. import __version__
from .errors import Answer, UsageError
from .invocation import Invocation

Start: TypeAlias = Callable[[Any], Coroutine[Any, Any, int]]
"""Given the reactor, does the work and returns the exit status."""
Prepare: TypeAlias = Callable[[Invocation, tuple[str, ...]], Start]
"""Reads a command's arguments (those after its name). Raises UsageError or Answer."""


@runtime_checkable
class AtOnce(Protocol):
    """A Start that may need no reactor."""

    def at_once(self) -> int | None:
        """Do the work and return the exit status; None where it takes a reactor after all."""


class Command(NamedTuple):
    """Where a command is (``package.module:function``, a Prepare), and what it does in one line."""

    where: str
    summary: str

    def load(self) -> Prepare:
        """Import it."""
        module, _, function = self.where.partition(":")
        prepare: Prepare = getattr(importlib.import_module(module), function)
        return prepare


def prepare_command(
    invocation: Invocation, commands: Mapping[str, Command], bare: Command, about: str, *, footer: str = ""
) -> Start:
    """Return the start of the command that *invocation* names; *bare* is meant where it names none.

    Raises UsageError for an unknown name (with close matches), Answer for ``--help`` and ``--version``.
    """
    words = invocation.argv
    if not words:
        return bare.load()(invocation, ())
    name = words[0]
    if name in ("-h", "--help") or (name == "help" and len(words) == 1):
        raise Answer(_help_text(invocation.program, commands, about, footer))
    if name in ("-V", "--version"):
        raise Answer(f"{invocation.program} {__version__}\n")
    if name == "help":
        return _find(invocation.program, commands, words[1]).load()(invocation, ("--help",))
    if name.startswith("-"):
        return bare.load()(invocation, words)
    return _find(invocation.program, commands, name).load()(invocation, words[1:])


def _find(program: str, commands: Mapping[str, Command], name: str) -> Command:
    if name in commands:
        return commands[name]
    import difflib

    close = difflib.get_close_matches(name, commands, n=3, cutoff=0.5)
    meant = (f"did you mean {' or '.join(f'{program} {match}' for match in close)}?",) if close else ()
    raise UsageError(f"{program} has no command {name!r}", (*meant, f"{program} --help lists them"))


def _help_text(program: str, commands: Mapping[str, Command], about: str, footer: str) -> str:
    width = max(map(len, commands))
    lines = "".join(f"  {name:<{width}}  {command.summary}\n" for name, command in commands.items())
    usage = f"usage: {program} COMMAND ...\n\n{about}\n\ncommands:\n{lines}\n"
    return f"{usage}{footer}{program} COMMAND --help has examples.\n"
