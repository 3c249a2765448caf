"""A call of a program, as the rules see it, and what a rule may do with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .case import Case
from .state import State
from .values import FETCHED, UNKNOWN, normal

MOST_ITEMS = 64
"""So many times a program is looked at that is run for each of many things."""


RunText = Callable[[str, State], str]


class Shell(Protocol):
    """What runs argument vectors and texts, without running anything."""

    case: Case
    run_powershell: RunText

    def run_words(self, words: Sequence[str], state: State, stdin: str) -> str: ...

    def run_text(self, text: str, state: State, stdin: str) -> str: ...


@dataclass(frozen=True)
class Call:
    """The program *name* is called with *words*, and reads *stdin*."""

    shell: Shell
    name: str
    words: list[str]
    state: State
    stdin: str

    def report(self, rule: str) -> None:
        """Note that this call breaks *rule*."""
        self.shell.case.report(rule, [self.name, *self.words])

    def run(self, words: Sequence[str]) -> str:
        """Run another program in this one's place."""
        return self.shell.run_words(words, self.state, self.stdin)

    def inside(self, folder: str) -> Call:
        """Return this call as it is in *folder*, where that is given."""
        if not folder:
            return self
        inner = self.state.copy()
        inner.folder = normal(folder, inner.folder)
        return replace(self, state=inner)

    def run_in_shell(self, text: str, arguments: Sequence[str] = (), zero: str = UNKNOWN) -> str:
        """Run *text* in a shell of its own, in which ``$0`` is *zero*."""
        inner = self.state.copy()
        inner.arguments = list(arguments)
        inner.variables["0"] = zero
        return self.shell.run_text(text, inner, self.stdin)

    def read_in_shell(self, text: str, arguments: Sequence[str] = ()) -> str:
        """Run *text*, which a shell reads from somewhere; nothing where that isn't known."""
        return UNKNOWN if text == UNKNOWN else self.run_in_shell(text, arguments)

    def fetched(self) -> str:
        """Return what a program prints that is made of what it reads."""
        return FETCHED if FETCHED in self.stdin else UNKNOWN


Program = Callable[[Call], str]
"""Judges a call; returns what the program prints."""


def silent(check: Callable[[Call], None]) -> Program:
    """Return the program that *check* judges, of whose output nothing is known but whether it was fetched."""

    def program(call: Call) -> str:
        check(call)
        return call.fetched()

    return program


def for_all(names: str, program: Program) -> dict[str, Program]:
    return dict(zip(names.split(), itertools.repeat(program), strict=False))
