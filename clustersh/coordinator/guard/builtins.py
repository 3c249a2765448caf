"""What a shell does itself, and programs that hand on what they read: what later commands are made of."""

from __future__ import annotations

from .calls import MOST_ITEMS, Call, Program, for_all
from .options import parse
from .values import FETCHED, HOME, UNKNOWN, ansi_quoted, bounded, normal

NOTHING = "true false : exit return break continue wait sleep test [ popd unset export"
"""What prints nothing and runs nothing."""
_PASSING = "cat tac head tail pv"


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
    for name in parse(call.words, "adinNptu").operands or ["REPLY"]:
        call.state.set(name, FETCHED if FETCHED in call.stdin else UNKNOWN)
    return ""


def _set(call: Call) -> str:
    if "--" in call.words:
        call.state.arguments = call.words[call.words.index("--") + 1 :]
    return ""


def _shift(call: Call) -> str:
    if call.state.arguments:
        call.state.arguments = call.state.arguments[1:]
    return ""


def _pass_on(call: Call) -> str:
    files = parse(call.words, "n" if call.name in ("head", "tail") else "").operands
    return bounded("".join(call.stdin if path == "-" else call.state.read(path) for path in files or ["-"]))


def _nothing(call: Call) -> str:
    return ""


def _which(call: Call) -> str:
    return call.words[-1] + "\n" if call.words else ""


PROGRAMS: dict[str, Program] = {
    "which": _which,
    "echo": _echo,
    "printf": _printf,
    **for_all("cd pushd", _cd),
    **for_all("read mapfile readarray getopts", _read),
    "set": _set,
    "shift": _shift,
    **for_all(_PASSING, _pass_on),
    **for_all(NOTHING, _nothing),
}
