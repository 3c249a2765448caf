"""A look at lines that can't be parsed: do they name a dangerous program, with the words that make it dangerous?

They are cut at what separates commands in any shell, quotes are left out, and each piece is judged as an argument
vector. That is no parser; it says what is suspicious, not what would run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from . import cmdlets, disks, downloads, power, removal
from .case import Case, Time, TooMuch
from .disks import check_written
from .engines import Engines
from .grammars import Grammar
from .values import UNKNOWN
from .verdicts import UNPARSABLE, printable

_MOST_TOKENS = 200_000
"""Of suspicious lines."""
_MOST_SHELLS = 8
"""Shells within each other that are followed."""
_LINE = re.compile(r"[^\n]{1,4096}(?!\S)|[^\n]{1,4096}")
_TOKENS = re.compile(r"[;&|(){}`]+|[^\s;&|(){}`]+")
_SEPARATORS = frozenset(";&|(){}`")
_KEYWORDS = frozenset(["then", "do", "else", "if", "while", "until", "!", "time"])
_WORD = re.compile(r"[\w-]+|/dev/")
_NAMES = {
    Grammar.BASH: [*removal.PROGRAMS, *disks.PROGRAMS, *power.PROGRAMS, *downloads.PROGRAMS, "find", "/dev/"],
    Grammar.POWERSHELL: [
        *cmdlets.DANGEROUS,
        *(name for name, meant in cmdlets.ALIASES.items() if meant in cmdlets.DANGEROUS),
    ],
}


def suspicions(
    text: str, grammar: Grammar, time: Time | None = None, most: int = _MOST_TOKENS
) -> Iterator[tuple[str, str]]:
    """Yield the suspicious lines of *text*, each with the rule that it may break.

    *time* is what the parsers have for texts within it; more tokens than *most* are suspicious without a look.
    """
    lowered = text.lower()
    names = {stem for name in _NAMES[grammar] if (stem := name.partition(".")[0]) in lowered}
    looked_at, time = 0, time or Time()
    for found in _LINE.finditer(text) if names else ():
        line = found[0].strip()
        if line.startswith("#") or names.isdisjoint(_WORD.findall(line.lower())):
            continue
        looked_at += len(_TOKENS.findall(line))
        if looked_at > most:
            yield UNPARSABLE, printable([line])
            return
        for rule in _rules_of(line, grammar, time):
            yield rule, printable([line])


def _rules_of(line: str, grammar: Grammar, time: Time) -> list[str]:
    case = Case(time)
    quotes = "\"'\\" if grammar is Grammar.BASH else "\"'"
    try:
        _run(line.translate(dict.fromkeys(map(ord, quotes))), grammar, case)
    except (TooMuch, RecursionError):
        return [UNPARSABLE]
    return list(dict.fromkeys(rule for rule, _ in case.found))


def _run(line: str, grammar: Grammar, case: Case) -> None:
    engines, stdin = Engines(case), UNKNOWN
    words: list[str] = []
    for part in [*_TOKENS.findall(line), ";"]:
        if part[0] not in _SEPARATORS:
            words.append(part)
            continue
        printed = _run_command(engines, words, grammar, case, stdin)
        stdin, words = printed if part == "|" else UNKNOWN, []


def _run_command(engines: Engines, words: list[str], grammar: Grammar, case: Case, stdin: str, shells: int = 0) -> str:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    for word, after in pairwise([*words, ""]):
        if ">" in word:
            check_written(case, word.rpartition(">")[2] or after, UNKNOWN, f"> {after}")
    if "-c" in words:
        if shells >= _MOST_SHELLS:
            raise TooMuch
        _run_command(engines, words[words.index("-c") + 1 :], grammar, case, UNKNOWN, shells + 1)
    return engines.run(words, grammar, stdin) if words else UNKNOWN
