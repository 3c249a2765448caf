"""What removes, or changes the owner or mode of, more than anyone wants: ``rm``, ``find -delete``, ``chmod -R`` and the like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .case import Case
from .options import parse
from .paths import is_everything_in_root, root_of
from .state import State
from .values import UNKNOWN

_RULES = {"root": "remove-root", "system": "remove-system", "home": "remove-system"}
_NARROWS_NOTHING = {
    *("-delete", "-depth", "-d", "-xdev", "-x", "-mount", "-print", "-print0", "-ls", "-follow", "-noleaf", "-true", "-o", "-a"),
    *("-ignore_readdir_race", "-exec", "-execdir", "-ok", "-okdir", "(", ")"),
}
_NARROWS_LITTLE = {"-mindepth", "-maxdepth", "-type", "-regextype"}
_RUNS = ("-exec", "-execdir", "-ok", "-okdir")


def check_rm(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    options = parse(words)
    recursive = options.has("r", "R", "recursive")
    if options.has("help", "version"):
        return
    for path in options.operands:
        if found := root_of(path, state.folder):
            if recursive or is_everything_in_root(path, state.folder):
                case.report(_RULES[found], [name, *words])
                return


def check_recursive_change(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    """``chmod``, ``chown``, ``chgrp`` and ``setfacl``."""
    options = parse(words, "mxM" if name == "setfacl" else "", frozenset(["reference", "from"]))
    if options.has("R", "recursive"):
        for path in options.operands:
            if root_of(path, state.folder) in ("root", "system"):
                case.report("permissions", [name, *words])
                return


def check_find(case: Case, words: Sequence[str], state: State) -> Iterator[tuple[list[str], str]]:
    """Judge ``find``; yield the commands that it runs, each with what ``{}`` stands for."""
    at = next((n for n, word in enumerate(words) if word.startswith(("-", "(", "!")) and word not in ("-H", "-L", "-P")), len(words))
    starts, tests = [word for word in words[:at] if not word.startswith("-")], list(words[at:])
    commands = list(_commands(tests))
    narrowed = any(_narrows(word, before) for before, word in zip([""] + tests, _without_commands(tests), strict=False) if word)
    for start in starts:
        found = root_of(start, state.folder)
        if "-delete" in tests and found and not narrowed:
            case.report(_RULES[found], ["find", *words])
    inner = starts[0] if len(starts) == 1 and not narrowed else UNKNOWN
    for command in commands:
        yield command, inner


def _narrows(word: str, before: str) -> bool:
    return word.startswith(("-", "!")) and word not in _NARROWS_NOTHING and word not in _NARROWS_LITTLE


def _without_commands(tests: Sequence[str]) -> list[str]:
    """Return *tests* with what ``-exec`` runs left empty."""
    found, inside = list[str](), False
    for word in tests:
        found.append("" if inside else word)
        inside = word in _RUNS or (inside and word not in (";", "+"))
    return found


def _commands(tests: Sequence[str]) -> Iterator[list[str]]:
    command: list[str] | None = None
    for word in tests:
        if command is None:
            command = [] if word in _RUNS else None
        elif word == ";" or (word == "+" and command[-1:] == ["{}"]):
            yield command
            command = None
        else:
            command.append(word)
    if command:
        yield command


CHECKS = {
    "rm": check_rm,
    **dict.fromkeys(("chmod", "chown", "chgrp", "setfacl"), check_recursive_change),
}
