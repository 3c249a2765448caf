"""What writes onto a disk, past its file systems, or makes new ones on it."""

from __future__ import annotations

import re

from .case import Case
from .options import Options, parse
from .paths import is_disk, may_be_volume
from .state import State

_SYSRQ = "/proc/sysrq-trigger"


def check_redirect(case: Case, path: str, printed: str, source: str, state: State) -> None:
    """Judge ``> path``, of a command that *printed* that."""
    if is_disk(path):
        case.report("disk-write", [source])
    if path == _SYSRQ and set(printed.strip()[:1]) & set("boc"):
        case.report("power", [f"echo {printed.strip()[:1]} {source}"])


def _check_dd(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    if any(word.startswith("of=") and may_be_volume(word[3:]) for word in words):
        case.report("disk-write", [name, *words])


def _check_tee(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    for path in parse(words).operands:
        check_redirect(case, path, stdin, f"tee {path}", state)


def _check_copy(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    options = parse(words, "tS", frozenset(["target-directory", "suffix"]))
    if len(options.operands) > 1 and is_disk(options.operands[-1]):
        case.report("disk-write", [name, *words])


def _check_operands(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    if any(may_be_volume(path) for path in parse(words).operands):
        case.report("disk-write", [name, *words])


def _formats(case: Case, name: str, words: list[str], options: Options, if_given: tuple[str, ...] = ()) -> None:
    if if_given and not options.has(*if_given):
        return
    if any(may_be_volume(path) for path in options.operands):
        case.report("disk-format", [name, *words])


def _check_mkfs(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
    options = parse(words, "tbCEgGiIJLmMNOrTUdKlsfn" if name != "mkfs" else "t")
    dry = name.startswith(("mkfs.ext", "mke2fs")) and "n" in options.given
    if not (dry or options.has("help", "version", "V")):
        _formats(case, name, words, parse(words))


def _check_flagged(*names: str):  # type: ignore[no-untyped-def]
    def check(case: Case, name: str, words: list[str], state: State, stdin: str) -> None:
        _formats(case, name, words, parse(words), names)

    return check


CHECKS = {
    "dd": _check_dd,
    "tee": _check_tee,
    **dict.fromkeys(("cp", "mv", "install"), _check_copy),
    "shred": _check_operands,
    "mkfs": _check_mkfs,
}
_ = re
