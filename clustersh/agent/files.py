"""A job's files: a manifest unpacked into the working directory, and that directory's removal. All of it blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..wire.files import Manifest


class FilesError(Exception):
    """The files can't be put where the job needs them; the message names the entry."""


def unpack(manifest: Manifest, folder: Path, blob_path: Callable[[str], Path]) -> None:
    """Make the entries of *manifest* in *folder* (which exists, empty and private), each blob from ``blob_path(sha256)``.

    Nothing is followed out of *folder*; setuid, setgid and sticky bits are dropped. Raises FilesError, WireError.
    """
    raise NotImplementedError


def remove_tree(folder: Path) -> None:
    """Remove *folder* and all in it, read-only directories too, following no symlink; gone already is fine.

    Raises FilesError.
    """
    raise NotImplementedError
