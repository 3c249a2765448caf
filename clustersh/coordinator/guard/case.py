"""One command that is being judged: what was found so far, and how much may still be looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from .values import shown
from .verdicts import printable

MOST_STEPS = 100_000
DEEPEST = 100
MOST_FINDINGS = 20


class TooMuch(Exception):
    """The command is too large or too deep to be looked at as a whole."""


class Case:
    """Findings by rule and place, the first of each; and a budget of steps and of depth."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], None] = {}
        self.fetched = ""
        """The words that last fetched something over plain HTTP."""
        self.doubts: list[str] = []
        """Lines that could not be parsed."""
        self._steps = 0
        self._depth = 0

    def report(self, rule: str, words: Iterable[str]) -> None:
        """Note that *words* break *rule*."""
        if len(self.found) < MOST_FINDINGS:
            self.found[rule, printable(shown(words))] = None

    def report_fetched(self, words: Iterable[str]) -> None:
        """Note that *words* run what was fetched over plain HTTP."""
        self.report("plain-http", [self.fetched] if self.fetched else words)

    def spend(self, steps: int = 1) -> None:
        """Count *steps* of work. Raises TooMuch."""
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise TooMuch

    @contextlib.contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one level of nesting. Raises TooMuch."""
        if self._depth >= DEEPEST:
            raise TooMuch
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
