"""The few calls that a full or failing disk can make fail, and how much room is left."""

from __future__ import annotations

import errno
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SPACE_EVERY_S = 1.0
SPACE_EVERY_BYTES = 8 << 20
MIN_FILES = 1000
"""Fewer free inodes than this count as a full disk."""


class Free(NamedTuple):
    """What an ordinary user may still fill: *bytes*, and *files* where the file system counts them."""

    bytes: int
    files: int | None


class Disk:
    """Writes and syncs; what fails raises OSError."""

    def write(self, file: io.FileIO, data: bytes) -> None:
        """Write all of *data* at *file*'s position."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def sync(self, file: io.FileIO) -> None:
        """Put what was written to *file* on the disk."""
        os.fsync(file.fileno())

    def free(self, folder: Path) -> Free:
        """Return how much room is left where *folder* is."""
        if not hasattr(os, "statvfs"):
            return Free(shutil.disk_usage(folder).free, None)
        found = os.statvfs(folder)
        return Free(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


class SpaceWatch:
    """Says when free space falls under *reserve* bytes. Any thread may ask.

    It looks once a second, or once in 8 MiB, and each time while there is none: so room that was made counts at once.
    """

    def __init__(self, disk: Disk, folder: Path, reserve: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._folder = folder
        self._reserve = reserve
        self._monotonic = monotonic
        self._next_look = float("-inf")
        self._bytes_left = 0
        self._problem = ""

    def problem(self, about_to_write: int = 0) -> str:
        """Return why nothing more should be written, empty while there is room."""
        self._bytes_left -= about_to_write
        now = self._monotonic()
        if self._problem or now >= self._next_look or self._bytes_left < 0:
            self._next_look, self._bytes_left = now + SPACE_EVERY_S, SPACE_EVERY_BYTES
            self._problem = self._look()
        return self._problem

    def _look(self) -> str:
        try:
            free = self._disk.free(self._folder)
        except OSError as error:
            return explain(error)
        if free.bytes < self._reserve:
            return "disk full on the machine"
        if free.files is not None and free.files < MIN_FILES:
            return "disk full on the machine (no inodes left)"
        return ""


def explain(error: OSError) -> str:
    """Say in a few words what is wrong with the machine's disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full on the machine"
    return f"disk error on the machine: {error.strerror or error}"
