"""What keeps a service from being installed or removed: one line, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..cli.errors import CliError


class ServiceError(CliError):
    """The message is for people; hints say what to do."""


def cannot(what: str, path: Path, error: OSError) -> ServiceError:
    """Return the error that says that *what* (such as ``write``) failed for *path*, and the way out of it."""
    hints: tuple[str, ...] = ()
    if error.errno == errno.ENOSPC:
        hints = ("free space there, then the same again",)
    elif isinstance(error, PermissionError):
        owner = _owner(path)
        hints = (f"{path.parent} is not this user's{owner}: run it as a user who may write there",)
    elif error.errno == errno.EROFS:
        hints = ("that file system is read-only",)
    return ServiceError(f"can't {what} {path}: {error.strerror or error}", hints, kind="storage")


def _owner(path: Path) -> str:
    for folder in path.parents:
        try:
            return f" but {folder.owner()}'s" if folder.stat().st_uid != os.getuid() else ""
        except (OSError, KeyError, NotImplementedError):
            continue
    return ""
