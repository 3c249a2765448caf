"""The options of a command line, as most programs take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Options(NamedTuple):
    """What a program was called with: *given* has letters and long names, with their values where they take one."""

    given: dict[str, str]
    operands: list[str]

    def has(self, *names: str) -> bool:
        return any(name in self.given for name in names)

    def has_long(self, name: str) -> bool:
        """Whether *name* was given, or what begins it and is no other's."""
        return any(len(each) > 2 and name.startswith(each) for each in self.given)

    def value(self, *names: str) -> str:
        """Return the value of the first of *names* that was given, or ""."""
        return next((self.given[name] for name in names if name in self.given), "")


def parse(words: Sequence[str], values: str = "", names: str = "", until: bool = False) -> Options:
    """Return what *words* (without the program's name) say.

    The letters in *values*, and the long *names*, take the next word where theirs has no value. With *until* the first
    operand ends the options, as for programs that run another one.
    """
    given, operands = dict[str, str](), list[str]()
    rest, long_names = list(reversed(words)), names.split()
    while rest:
        word = rest.pop()
        if word == "--":
            operands += reversed(rest)
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            given[name] = value if equals else rest.pop() if name in long_names and rest else ""
        elif word.startswith("-") and len(word) > 1:
            _letters(word[1:], values, rest, given)
        else:
            operands.append(word)
            if until:
                operands += reversed(rest)
                break
    return Options(given, operands)


def _letters(letters: str, values: str, rest: list[str], given: dict[str, str]) -> None:
    for number, letter in enumerate(letters):
        if letter in values:
            given[letter] = letters[number + 1 :] or (rest.pop() if rest else "")
            return
        given[letter] = ""
