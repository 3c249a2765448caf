"""Terminals that run on their own: what is started in them, and what is typed into them."""

from __future__ import annotations

from .calls import Call, Program
from .options import parse
from .state import State
from .values import UNKNOWN, ansi_quoted

_RUNS = ("new", "new-session", "new-window", "neww", "split-window", "splitw", "run-shell", "run", "respawn-pane")
_KEYS = {"Enter": "\n", "KPEnter": "\n", "C-m": "\n", "C-j": "\n", "Space": " "}


def _tmux(call: Call) -> str:
    """Judge each of its commands, between which there is a ``;``."""
    words: list[str] = []
    for word in [*parse(call.words, "cfLST", until=True).operands, ";"]:
        if word != ";":
            words.append(word)
            continue
        _tmux_command(call, words)
        words = []
    return ""


def _tmux_command(call: Call, words: list[str]) -> None:
    if words[:1] in (["send-keys"], ["send"]):
        keys = parse(words[1:], "Nt", until=True).operands
        _type(call, "".join(_KEYS.get(key, key) for key in keys))
    elif words and words[0] in _RUNS:
        rest = parse(words[1:], "cefFnstxyl", until=True).operands
        call.run(rest) if len(rest) > 1 else call.run_in_shell("".join(rest))


def _screen(call: Call) -> str:
    options = parse(call.words, "cehpSstTX", until=True)
    if options.value("X") == "stuff":
        _type(call, ansi_quoted("".join(options.operands)).replace("^M", "\n"))
        return ""
    return "" if options.has("ls", "list", "X", "r") else call.run(options.operands)


def _type(call: Call, text: str) -> None:
    """Run the lines of *text* that end, as the shell does into which they are typed."""
    call.shell.run_text(text.replace("\r", "\n").rpartition("\n")[0], State(), UNKNOWN)


PROGRAMS: dict[str, Program] = {"tmux": _tmux, "screen": _screen}
