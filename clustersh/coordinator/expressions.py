"""The grammar of targets: operands and what joins them, read from left to right, in time that grows with the length.

The syntax is NodeSet's. It is read here first because NodeSet makes every name of ``web[1-999999999]`` before anyone
could object, and takes quadratic time over many operators.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..wire.ids import MACHINE_NAME
from ..wire.problems import Kind, ProblemError

MAX_NAMES = 20_000
"""Names that an expression may say, those in brackets counted."""
MAX_GROUPS = 256
"""Groups that an expression may say."""
MAX_GLOBS = 32
"""Globs that an expression may say: each looks at every machine's name."""
MAX_BRACKETS = 4
"""Brackets of one word."""

_TOKEN = re.compile(r"((?:[^\[\],!&^]|\[[^\[\]]*\])+)|([,!&^])|(.)", re.DOTALL)
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18})(?:/([0-9]{1,18}))?)?")
_GROUP = re.compile(rf"@(?:({MACHINE_NAME.pattern}):)?({MACHINE_NAME.pattern}|\*)")
_GLOB = re.compile(r"[a-z0-9._*?-]{1,128}")
_OUTSIDE_LENGTH = 128
"""Characters of a word outside its brackets: no name is as long."""


class Form(enum.Enum):
    """What a word is."""

    ALL = enum.auto()
    NAME = enum.auto()
    NAMES = enum.auto()
    GLOB = enum.auto()
    GROUP = enum.auto()


_BOUNDS = {
    Form.ALL: (MAX_GROUPS, "groups"),
    Form.GROUP: (MAX_GROUPS, "groups"),
    Form.NAME: (MAX_NAMES, "names"),
    Form.NAMES: (MAX_NAMES, "names"),
    Form.GLOB: (MAX_GLOBS, "patterns"),
}


class Operand(NamedTuple):
    """One word of an expression and the operator before it: ``,`` adds, ``!`` takes away, ``&`` keeps, ``^`` toggles.

    *size* is how many names or groups its brackets stand for.
    """

    operator: str
    word: str
    form: Form
    size: int


class GroupName(NamedTuple):
    """A group as it is said: ``@source:name``; the groups that people make have no source. ``*``: the whole source."""

    source: str
    name: str


def read(text: str) -> list[Operand]:
    """Return the operands of *text*, in order. Raises ProblemError (bad-request)."""
    operands: list[Operand] = []
    left = {what: most for most, what in _BOUNDS.values()}
    for operator, word in _words(text):
        operand = _operand(operator, word)
        most, what = _BOUNDS[operand.form]
        left[what] -= operand.size
        if left[what] < 0:
            raise _bad(
                f"a target may say at most {most} {what}; it was too much at {shown(word)}", "make a group of them"
            )
        operands.append(operand)
    return operands


def group_of(word: str) -> GroupName:
    """Return the group that *word*, without brackets, names. Raises ProblemError (bad-request)."""
    found = _GROUP.fullmatch(word)
    if found is None:
        raise _bad(f"{shown(word)} is no group", "groups are written like @web, labels and facts like @os:linux")
    return GroupName(found[1] or "", found[2])


def shown(text: str) -> str:
    """Return *text* as errors show it: quoted, one line, no control characters, not long."""
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of *text*, each with the operator before it; the first one adds to nothing."""
    operator, word = ",", ""
    for token in _TOKEN.finditer(text):
        if token[3]:
            raise _bad(f"{shown(text)} has a bracket too many or too few", "brackets hold numbers: web[01-10,12]")
        if token[1]:
            word = token[1].strip().lower()
        else:
            if not word and (operator, token[2]) == (",", "!") and token.start():
                operator = "!"  # "all,!db1" is as clear as "all!db1"
                continue
            if not word:
                raise _missing(text, token[2])
            yield operator, word
            operator, word = token[2], ""
    if not word:
        raise _missing(text, operator)
    yield operator, word


def _operand(operator: str, word: str) -> Operand:
    if word in ("all", "@*", "@all"):
        return Operand(operator, word, Form.ALL, 1)
    if "[" not in word and not word.startswith("@") and "*" not in word and "?" not in word:
        _check_name(word)
        return Operand(operator, word, Form.NAME, 1)
    outside = _BRACKET.sub("1", word)
    if len(outside) > _OUTSIDE_LENGTH:
        raise _bad(f"{shown(word)} is longer than any name", "")
    count = _count(word)
    if outside.startswith("@"):
        group_of(outside)
        return Operand(operator, word, Form.GROUP, count)
    if "*" in outside or "?" in outside:
        if not _GLOB.fullmatch(outside):
            raise _no_name(outside)
        return Operand(operator, word, Form.GLOB, count)
    _check_name(outside)
    return Operand(operator, word, Form.NAMES, count)


def _count(word: str) -> int:
    """Return how many words *word* stands for, counted without making any. Raises ProblemError (bad-request)."""
    brackets = _BRACKET.findall(word)
    if len(brackets) > MAX_BRACKETS:
        raise _bad(f"{shown(word)} has more than {MAX_BRACKETS} brackets", "")
    if "][" in word:
        raise _bad(f"{shown(word)} has two brackets with nothing between them", "")
    count = 1
    for bracket in brackets:
        count *= sum(_length(word, part.strip()) for part in bracket.split(","))
    return count


def _length(word: str, part: str) -> int:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise _bad(f"{shown(part)} in {shown(word)} is no number and no range", "brackets hold numbers: web[01-10,12]")
    first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
    if last < first or step < 1:
        raise _bad(f"{shown(part)} in {shown(word)} is no range", "the smaller number comes first: web[1-3]")
    return (last - first) // step + 1


def _check_name(word: str) -> None:
    if not MACHINE_NAME.fullmatch(word):
        raise _no_name(word)


def _no_name(word: str) -> ProblemError:
    hint = "targets are names, @groups, web[01-10] or web*, joined by , (and) ! (without) & (both) ^ (either)"
    if any(char.isspace() for char in word):
        hint = "put a comma between names"
    return _bad(f"{shown(word)} can't be a machine's name", hint)


def _missing(text: str, operator: str) -> ProblemError:
    if not text.strip():
        return _bad("the target is empty", "name a machine, a @group, or all")
    away = "to take some away from all of them: all!web03"
    hint = away if text.strip().startswith("!") else f"name machines on both sides of a {operator!r}, or leave it out"
    return _bad(f"{shown(text)}: there is nothing beside its {operator!r}", hint)


def _bad(detail: str, hint: str) -> ProblemError:
    return ProblemError(Kind.BAD_REQUEST, detail, hint=hint)
