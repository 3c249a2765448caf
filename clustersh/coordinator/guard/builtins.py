"""What a shell does itself, and programs that hand on what they read: what later commands are made of."""

from __future__ import annotations

import base64
import binascii
import itertools

from .calls import MOST_ITEMS, Call, Program, for_all
from .options import parse
from .paths import root_of
from .values import FETCHED, HOME, LISTED, UNKNOWN, ansi_quoted, bounded, normal

NOTHING = "true false : exit return break continue wait sleep test [ popd unset export"
"""What prints nothing and runs nothing."""
_PASSING = "cat tac head tail pv"
_BLANKS = " \t\n"


def _echo(call: Call) -> str:
    words, escapes = call.words, False
    while words and words[0] in ("-n", "-e", "-E", "-ne", "-en"):
        escapes, words = escapes or "e" in words[0], words[1:]
    text = " ".join(words)
    return bounded(ansi_quoted(text) if escapes else text) + "\n"


def _printf(call: Call) -> str:
    words = call.words[1:] if call.words[:1] == ["--"] else call.words
    if words[:1] == ["-v"]:
        call.state.set(words[1] if len(words) > 1 else "", UNKNOWN)
        return ""
    if not words:
        return ""
    pieces, values = ansi_quoted(words[0]).replace("%b", "%s").split("%s"), words[1:]
    if "%" in "".join(pieces).replace("%%", ""):
        return bounded(" ".join([*pieces, *values]))
    count = len(pieces) - 1
    turns = max(1, -(-len(values) // count)) if count else 1
    rest = iter(values[: count * MOST_ITEMS])
    return bounded("".join("".join(piece + next(rest, "") for piece in pieces[:-1]) + pieces[-1] for _ in range(turns)))


def _cd(call: Call) -> str:
    operands = [word for word in call.words if word not in ("-L", "-P", "-e", "--")]
    target = operands[0] if operands else HOME
    call.state.folder = UNKNOWN if target == "-" else normal(target, call.state.folder)
    return ""


def _read(call: Call) -> str:
    names, values = parse(call.words, "adinNptu").operands or ["REPLY"], list[str]()
    if call.name == "read" and not {UNKNOWN, FETCHED} & {*call.stdin}:
        values = _fields(call.stdin.partition("\n")[0], len(names), call.state.variables.get("IFS", UNKNOWN))
    unknown = FETCHED if FETCHED in call.stdin else UNKNOWN
    for name, value in itertools.zip_longest(names, values[: len(names)], fillvalue=unknown):
        call.state.set(name, value)
    return ""


def _fields(line: str, count: int, separators: str) -> list[str]:
    """Return what ``read`` makes of *line* for *count* names; nothing where its separators are none of the usual."""
    if separators == "":
        return [line]
    return line.split(None, count - 1) if separators == _BLANKS else []


def _pwd(call: Call) -> str:
    return call.state.folder + "\n"


def _ls(call: Call) -> str:
    """Its short listing: a pattern for each folder's content."""
    options = parse(call.words, "IwT")
    if options.has("l", "g", "o", "n", "R", "s", "i"):
        return UNKNOWN
    paths = options.operands or ["."]
    listed = [_listed(path, call.state.folder, itself=options.has("d")) for path in paths]
    return bounded("".join(f"{each}\n" for each in listed))


def _listed(path: str, folder: str, *, itself: bool) -> str:
    """Return what ``ls`` prints of *path*: of a folder that is known as one, all that is in it."""
    inside = not itself and "*" not in path and (path == "." or root_of(path, folder))
    return LISTED if inside else path + UNKNOWN


def _base64(call: Call) -> str:
    options = parse(call.words, "w", "wrap")
    text = call.state.read(options.operands[0]) if options.operands else call.stdin
    if FETCHED in text:
        return FETCHED
    if UNKNOWN in text or not options.has("d", "D", "decode"):
        return UNKNOWN
    try:
        return bounded(base64.b64decode("".join(text.split())).decode("utf-8", "replace"))
    except (binascii.Error, ValueError):
        return UNKNOWN


def _set(call: Call) -> str:
    if "--" in call.words:
        call.state.arguments = call.words[call.words.index("--") + 1 :]
    elif call.words and call.words[0][:1] not in ("-", "+"):
        call.state.arguments = call.words
    return ""


def _shift(call: Call) -> str:
    if call.state.arguments:
        call.state.arguments = call.state.arguments[1:]
    return ""


def _pass_on(call: Call) -> str:
    files = parse(call.words, "n" if call.name in ("head", "tail") else "").operands
    text = bounded("".join(call.stdin if path == "-" else call.state.read(path) for path in files or ["-"]))
    return UNKNOWN if LISTED in text and call.name in ("head", "tail") else text


def _nothing(call: Call) -> str:
    return ""


def _which(call: Call) -> str:
    return call.words[-1] + "\n" if call.words else ""


PROGRAMS: dict[str, Program] = {
    "which": _which,
    "pwd": _pwd,
    "ls": _ls,
    "base64": _base64,
    "echo": _echo,
    "printf": _printf,
    **for_all("cd pushd", _cd),
    **for_all("read mapfile readarray getopts", _read),
    "set": _set,
    "shift": _shift,
    **for_all(_PASSING, _pass_on),
    **for_all(NOTHING, _nothing),
}
