"""A call of a cmdlet or of a Windows program, as the rules see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from .case import Case
from .state import State
from .values import FETCHED, UNKNOWN

RunText = Callable[[str, State], str]


class Shells(NamedTuple):
    """The other shells that a command may hand a text to."""

    bash: RunText
    cmd: RunText


class Shell(Protocol):
    case: Case
    shells: Shells

    def run_text(self, text: str, state: State, stdin: str = UNKNOWN) -> str: ...

    def run_words(self, words: Sequence[str], state: State, stdin: str = UNKNOWN) -> str: ...


@dataclass(frozen=True)
class Call:
    """The command *name* is called with *words*, and reads *stdin*; *typed* is what was written for it."""

    shell: Shell
    name: str
    typed: str
    words: list[str]
    state: State
    stdin: str

    def report(self, rule: str) -> None:
        self.shell.case.report(rule, [self.typed, *self.words])

    def has(self, *names: str) -> bool:
        """Whether a parameter was given that begins one of *names*, such as ``-rec`` for ``recurse``."""
        given = [word[1:].rstrip(":").lower() for word in self.words if word.startswith("-") and len(word) > 1]
        return any(name.startswith(word) for word in given for name in names)

    def value(self, *names: str) -> str:
        """Return the word after the parameter that begins one of *names*."""
        for word, after in pairwise([*self.words, ""]):
            if word.startswith("-") and any(name.startswith(word[1:].rstrip(":").lower()) for name in names):
                return after
        return ""

    @property
    def only_tries(self) -> bool:
        return any(re.fullmatch(r"-(wi|wh|wha|what|whati|whatif)", word, re.IGNORECASE) for word in self.words)

    @property
    def operands(self) -> list[str]:
        return [word for word in self.words if not word.startswith("-")]

    def fetched(self) -> str:
        return FETCHED if FETCHED in self.stdin else UNKNOWN
