"""A job's files: a manifest unpacked into the working directory, and that directory's removal. All of it blocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..wire.files import Entry, EntryKind, Manifest, check_manifest
from ..wire.problems import ProblemError

BLOCK = 1 << 20
PERMISSIONS = 0o777


class FilesError(Exception):
    """The files can't be put where the job needs them; the message names the entry."""


def unpack(manifest: Manifest, folder: Path, blob_path: Callable[[str], Path]) -> None:
    """Make the entries of *manifest* in *folder* (there, empty, private), each blob from ``blob_path(sha256)``.

    Nothing is followed out of *folder*; setuid, setgid and sticky bits are dropped. Raises FilesError, WireError.
    """
    check_manifest(manifest)
    root = os.fsencode(folder)
    for entry in manifest.entries:
        with _named(entry):
            _make(entry, _place(root, entry), blob_path)
    for entry in reversed(manifest.entries):
        if entry.kind is EntryKind.FOLDER:
            with _named(entry):
                Path(os.fsdecode(_place(root, entry))).chmod(entry.mode & PERMISSIONS)


def remove_tree(folder: Path) -> None:
    """Remove *folder* and all in it, read-only directories too, following no symlink; gone already is fine.

    Raises FilesError.
    """
    if not os.path.lexists(folder):
        return
    try:
        if not folder.is_symlink():
            _open_up(folder)
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except RecursionError:
        raise FilesError(f"{folder} can't be removed: its directories are nested too deeply") from None
    except OSError as error:
        raise FilesError(f"{folder} can't be removed: {error.strerror or error}") from error


def _make(entry: Entry, path: bytes, blob_path: Callable[[str], Path]) -> None:
    if entry.kind is EntryKind.FOLDER:
        os.mkdir(path, 0o700)  # noqa: PTH102 (names are bytes, which a Path can't hold)
    elif entry.kind is EntryKind.SYMLINK:
        os.symlink(entry.target, path)  # noqa: PTH211
    else:
        _copy(blob_path(entry.sha256), path, entry)


def _copy(source: Path, path: bytes, entry: Entry) -> None:
    """Copy *source* to a new file: the blob's own file must not change when the job writes to its copy."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with source.open("rb") as blob, os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        shutil.copyfileobj(blob, file, BLOCK)
        if file.tell() != entry.size:
            raise FilesError(f"its content has {file.tell()} bytes, not {entry.size}")
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), entry.mode & PERMISSIONS)


def _place(root: bytes, entry: Entry) -> bytes:
    """Return where *entry* goes; on Windows, what only Windows takes for a path that leads out is refused."""
    if os.name == "nt" and any(sign in entry.path for sign in (b"\\", b":")):
        raise FilesError("Windows can't have that name")
    return root + b"/" + entry.path


@contextlib.contextmanager
def _named(entry: Entry) -> Iterator[None]:
    shown = entry.path.decode(errors="backslashreplace")
    try:
        yield
    except FilesError as error:
        raise FilesError(f"{shown!r} can't be made: {error}") from error
    except ProblemError as error:
        raise FilesError(f"{shown!r} can't be made: {error}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FilesError(f"{shown!r} can't be made: {reason}") from error


def _open_up(folder: Path) -> None:
    """Let us remove what is in *folder*: a job may have left directories that it took its own rights to."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):  # removing it says what is wrong
            current.chmod(stat.S_IRWXU)
            with os.scandir(current) as entries:
                waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
