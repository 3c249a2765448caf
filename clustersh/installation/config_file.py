"""``[join]`` of config.toml, written and removed: everything else in the file stays as people wrote it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from ..home import write_private
from ..services import ServiceError
from ..services.errors import cannot

_SECTION = re.compile(r"^\[join\][^\n]*(?:\n|\Z)(?:(?:[ \t]*(?:#[^\n]*)?\n)*[^\s#\[][^\n]*(?:\n|\Z))*", re.MULTILINE)
"""The section up to its last key: comments after that are about what comes next."""


def set_join(path: Path, coordinator: str, ca_sha256: str) -> None:
    """Have *path* say where this machine's coordinator is, and its CA. Raises ServiceError."""
    wanted = {"coordinator": coordinator, "ca": ca_sha256}
    before = _read(path)
    if _parsed(path, before).get("join") != wanted:
        section = f'[join]\ncoordinator = "{coordinator}"\nca = "{ca_sha256}"\n'
        after = _SECTION.sub("", before).strip()
        _write(path, f"{after}\n\n{section}" if after else section, {**_parsed(path, before), "join": wanted})


def remove_join(path: Path) -> None:
    """Take it out again; a file that has nothing else goes. Raises ServiceError."""
    before = _read(path)
    rest = {name: value for name, value in _parsed(path, before).items() if name != "join"}
    after = _SECTION.sub("", before).strip()
    try:
        if not after:
            path.unlink(missing_ok=True)
            return
    except OSError as error:
        raise cannot("remove", path, error) from error
    _write(path, after + "\n", rest)


def restore(path: Path, content: str) -> None:
    """Have *path* hold *content*, or not be there where that is empty. Raises OSError."""
    if content:
        write_private(path, content.encode())
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> str:
    """Return what *path* holds; "" where it isn't there. Raises ServiceError."""
    return _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{path}: can't be read: {error}", kind="storage") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ServiceError(f"{path}: not valid TOML: {error}", ("correct it, then the same again",)) from error


def _write(path: Path, text: str, meaning: dict[str, Any]) -> None:
    """Write *text*, if it means just what it should: people write TOML in ways that no pattern knows."""
    try:
        as_meant = tomllib.loads(text) == meaning
    except tomllib.TOMLDecodeError:
        as_meant = False
    if not as_meant:
        raise ServiceError(f"{path}: [join] is not written as a section", ("take it out, then the same again",))
    try:
        write_private(path, text.encode())
    except OSError as error:
        raise cannot("write", path, error) from error
