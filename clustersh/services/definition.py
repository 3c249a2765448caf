"""The one file that makes a service: written whole or not at all, and readable where the system reads it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import cannot


def read(path: Path) -> str:
    """Return the definition; "" where there is none. Raises ServiceError."""
    try:
        return path.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise cannot("read", path, error) from error


def write(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Make *path* hold *content*, and return whether it is another than before. Raises ServiceError."""
    try:
        if path.exists() and path.read_bytes() == content:
            path.chmod(mode)
            return False
        made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _replace(path, content, mode)
        except OSError:
            _remove_empty(made)
            raise
    except OSError as error:
        raise cannot("write", path, error) from error
    return True


def remove(*paths: Path) -> None:
    """Remove those *paths* that are there. Raises ServiceError."""
    for path in paths:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise cannot("remove", path, error) from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
