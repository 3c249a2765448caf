"""Space kept for the last: a file that is given up where the disk has no room for what must be recorded."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 256 << 10
"""Bytes: room for some hundred records."""
_ROOMY = 16 * SIZE
_PIECE = 64 << 10


class Spare:
    """The file *path*. All of it blocks, and raises nothing: it is kept as well as the disk lets us."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._whole = False

    def keep(self) -> None:
        """Have the file again where the disk has plenty of room."""
        with contextlib.suppress(OSError):
            if not self._whole and shutil.disk_usage(self._path.parent).free > _ROOMY:
                self._grow()

    def give_up(self) -> bool:
        """Free its space, and its inode, for somebody else's next write; False where there is none."""
        self._whole = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def take_back(self) -> None:
        """Take what the write has left of it, before anybody else does."""
        with contextlib.suppress(OSError):
            self._grow()

    def _grow(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # Random bytes: a file system that compresses would make nothing of zeros.
            while (missing := SIZE - os.fstat(descriptor).st_size) > 0:
                os.write(descriptor, os.urandom(min(missing, _PIECE)))
            self._whole = True
        finally:
            os.fsync(descriptor)
            os.close(descriptor)
