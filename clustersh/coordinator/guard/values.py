"""What a shell's words may hold: texts in which some marks stand for what nobody can know before it runs.

The marks are private characters, so a word stays one word where it is put into a text that is parsed again.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence

UNKNOWN = "\ue000"
"""Something that an expansion leaves."""
FETCHED = "\ue001"
"""Something that came over plain HTTP."""
HOME = "\ue002"
"""A home directory, where ``~`` or ``$HOME`` was expanded."""
LISTED = "*" + UNKNOWN
"""Ends the pattern that stands for all that a program lists, as ``find /etc`` does; only ``xargs`` takes it so."""
OPEN, COMMA, CLOSE = "\ue003", "\ue004", "\ue005"
"""Braces and commas that no quote protects."""
LONGEST = 128 << 10
"""Characters that are remembered of one value, and of a text that is parsed."""
_MOST_ALTERNATIVES = 64
_PLAIN = str.maketrans({OPEN: "{", COMMA: ",", CLOSE: "}"})
_SHOWN = str.maketrans({UNKNOWN: "…", FETCHED: "…", HOME: "~", OPEN: "{", COMMA: ",", CLOSE: "}"})
_ACTIVE = str.maketrans({"{": OPEN, ",": COMMA, "}": CLOSE})
_BRACES = re.compile(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}")
_ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))", re.DOTALL)


def bounded(value: str) -> str:
    """Return *value*, or that it is not known where it is too long to be kept."""
    return value if len(value) <= LONGEST else FETCHED if FETCHED in value else UNKNOWN


def shown(words: Iterable[str]) -> list[str]:
    """Return *words* as people read them."""
    return [word.translate(_SHOWN) for word in words]


def unquoted(text: str) -> str:
    """Return an unquoted part of a word without its backslashes, its braces marked as active."""
    if "\\" not in text:
        return text.translate(_ACTIVE)
    parts = re.split(r"\\(\n|.|\Z)", text, flags=re.DOTALL)
    return "".join(
        part.translate(_ACTIVE) if number % 2 == 0 else "" if part == "\n" else part
        for number, part in enumerate(parts)
    )


def double_quoted(text: str) -> str:
    """Return what stands for *text* between double quotes."""
    return re.sub(r"\\(\n|[$`\"\\])", lambda found: "" if found[1] == "\n" else found[1], text)


def ansi_quoted(text: str) -> str:
    """Return what stands for *text* in ``$'...'``."""

    def char(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        if code:
            number = int(code, 16)
            return chr(number) if number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else UNKNOWN
        return chr(int(found[4], 8) & 0xFF) if found[4] else _ESCAPES.get(found[5], found[5])

    return _ESCAPE.sub(char, text)


def alternatives(word: str) -> list[str]:
    """Return the words that a shell makes of *word* by its active braces."""
    todo, done = [word], list[str]()
    while todo:
        each = todo.pop()
        found = next((braces for braces in _BRACES.finditer(each) if COMMA in braces[1]), None)
        if found is None:
            done.append(each.translate(_PLAIN))
        elif len(todo) + len(done) > _MOST_ALTERNATIVES or found[1].count(COMMA) > _MOST_ALTERNATIVES:
            return [UNKNOWN]
        else:
            choices = reversed(found[1].split(COMMA))
            todo += [each[: found.start()] + one + each[found.end() :] for one in choices]
    return done


def joined(pieces: Sequence[tuple[str, bool]]) -> list[str]:
    """Return the words that *pieces* make: texts, each with whether it is split at blanks."""
    words, current, quoted = list[str](), "", False
    for text, split in pieces:
        if not split:
            current, quoted = current + text, True
            continue
        parts = text.split()
        if text[:1].isspace() and (current or quoted):
            words.append(current)
            current, quoted = "", False
        for first, part in zip(itertools.chain([True], itertools.repeat(False)), parts, strict=False):
            if not first:
                words.append(current)
                current, quoted = "", False
            current += part
        if parts and text[-1:].isspace():
            words.append(current)
            current, quoted = "", False
    if current or quoted:
        words.append(current)
    return [bounded(one) for word in words for one in alternatives(word)]


def split_words(text: str) -> list[str]:
    """Return the words of *text*, as ``xargs`` splits it."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def base_name(word: str) -> str:
    """Return the name of the program that *word* calls."""
    return word.rpartition("/")[2]


_A_HOME = f"/home/{HOME}"


def normal(path: str, folder: str = UNKNOWN) -> str:
    """Return *path*, seen from *folder*, without what changes nothing."""
    if not path.startswith(("/", HOME)):
        path = f"{folder}/{path}"
    # Above a home there is a folder of homes, or all of the machine.
    path = posixpath.normpath(_A_HOME + path.removeprefix(HOME) if path.startswith(HOME) else path)
    if path == _A_HOME or path.startswith(f"{_A_HOME}/"):
        return HOME + path.removeprefix(_A_HOME)
    return "/" + path.lstrip("/") if path.startswith("/") else path
