"""A small file system of a test's own, that can be full, without inodes, or read-only. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .users import USER

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small file system, on Linux"
)


class SmallDisk:
    """A tmpfs at *path*; what fills it are files of root's beside what the service has there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, *, leave: int = 0) -> None:
        """Take all of the space but *leave* bytes."""
        with (self.path / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while (left := self.free - leave) > 0:
                file.write(bytes(min(left, 1 << 20)))

    def take_inodes(self) -> None:
        """Take all inodes."""
        with suppress(OSError):
            for number in range(1 << 20):
                (self.path / f"filler-{number}").touch()

    def make_room(self) -> None:
        """Give everything back."""
        for path in self.path.glob("filler*"):
            path.unlink()

    def remount(self, mode: str) -> bool:
        """Make it read-only (``ro``), or not (``rw``); False while a file there is open for writing."""
        return subprocess.run(["mount", "-o", f"remount,{mode}", self.path], capture_output=True).returncode == 0

    @property
    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(path: Path, *, size: int, inodes: int) -> Iterator[SmallDisk]:
    """Mount a file system of the services' user at *path*, made here, for as long as this lasts."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, USER, USER)
    options = f"size={size},nr_inodes={inodes},uid={USER},gid={USER},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
