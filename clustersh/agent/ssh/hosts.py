"""The hosts that a user has in an ssh configuration."""

from __future__ import annotations

import os
import re
import shlex
from glob import glob
from pathlib import Path

_DESTINATION = re.compile(r"(?:[A-Za-z0-9_.][A-Za-z0-9_.+-]{0,63}@)?[A-Za-z0-9_.:\[][A-Za-z0-9_.:%\[\]-]{0,254}")
_LINE = re.compile(r"([A-Za-z]+)(?:\s*=\s*|\s+)(.*)")
MAX_HOSTS = 10_000
_MAX_DEPTH = 16
_MAX_FILE = 4 << 20


def is_destination(text: str) -> bool:
    """Whether *text* can be given to ssh as where to go: HOST or USER@HOST, never an option."""
    return _DESTINATION.fullmatch(text) is not None


def configured_hosts(config: Path) -> list[str]:
    """Return every host that *config* and what it includes name outright, in their order; patterns are none. Blocks."""
    found: dict[str, None] = {}
    _read(config, config.parent, found, set(), 0)
    return list(found)[:MAX_HOSTS]


def _read(path: Path, base: Path, found: dict[str, None], seen: set[Path], depth: int) -> None:
    if path in seen:  # files that include each other would be read again and again
        return
    seen.add(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE).decode(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        keyword, words = _words(line)
        if keyword == "include" and depth < _MAX_DEPTH:
            for word in words:
                for each in sorted(glob(str(base / Path(word).expanduser()))):  # noqa: PTH207 - its pattern may be absolute
                    _read(Path(os.path.realpath(each)), base, found, seen, depth + 1)
        elif keyword == "host" and not any(word.startswith("!") for word in words):
            found.update((word, None) for word in words if is_destination(word) and not set(word) & set("*?!"))


def _words(line: str) -> tuple[str, list[str]]:
    """Return a line's keyword, in lower case, and its arguments: ``Host a b`` or ``Host=a``."""
    found = _LINE.fullmatch(line.strip())
    if found is None:
        return "", []
    try:
        return found[1].lower(), shlex.split(found[2], comments=True)
    except ValueError:
        return "", []
