"""A folder on a disk that loses its power: what was not synced may be gone then, of files and of names.

What is written to a file is safe once that file was synced, what happens to a name (made, renamed, removed) once its
folder was; a rename happens whole or not at all, and of what happens to a folder's names nothing survives what came
before it. Until then any part may have reached the disk. The power may go in the middle of anything.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from clustersh.agent.disk import Disk

SYNCING = (
    "home",
    "agent.journal",
    "agent.job_files",
    "agent.output_file",
    "agent.output_recovery",
    "coordinator.ledger",
)
"""The modules that have `sync_folder` by name."""


HOW_MUCH = ("nothing", "some", "all")


class PowerLoss(BaseException):
    """The machine stops in the middle of something."""


class Storage:
    """*folder*, and what of it would be left; *left* operations from now the power goes (None: it doesn't)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left: int | None = None
        self._kept = folder.with_name(folder.name + ".kept")
        self._synced: dict[int, bytes] = {}
        """By inode: what a file held when it was synced."""
        self._names: dict[Path, list[dict[str, int]]] = {}
        """By folder: its names and their inodes when it was synced, and after each change since."""
        folder.mkdir()
        self._take_in()

    def patched(self) -> ExitStack:
        """Return a context in which the programs' own calls are watched here."""
        stack = ExitStack()
        for name in ("open", "replace", "unlink", "mkdir"):
            stack.enter_context(mock.patch.object(os, name, self._watched(getattr(os, name))))
        stack.enter_context(mock.patch.object(os, "fsync", self._sync))
        for module in SYNCING:
            stack.enter_context(mock.patch(f"clustersh.{module}.sync_folder", self._sync_names))
        return stack

    def is_over(self) -> bool:
        """Whether the power goes now, in the next operation."""
        if self.left is not None:
            self.left -= 1
        return self.left is not None and self.left < 0

    def lose(self, random: Random, names: str, contents: str) -> None:
        """Leave ``nothing``, ``all`` or, by *random*, ``some`` of the names and the contents that were not synced."""
        left = self.folder.with_name(self.folder.name + ".left")
        self._leave(self.folder, left, random, names, contents)
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        shutil.rmtree(self._kept)
        self._take_in()

    def safe(self) -> dict[str, bytes]:
        """Return the files right in the folder that no loss of power can take, as it would leave them."""
        names = self._names[self.folder][0]
        return {name: self._synced.get(inode, b"") for name, inode in names.items()}

    # -- what happens

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            place = Path(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else Path()
            if self.folder not in place.parents or (real.__name__ == "open" and self._changes_no_name(place, *rest)):
                return real(path, *rest, **options)
            if self.is_over():
                raise PowerLoss
            result = real(path, *rest, **options)
            if real.__name__ == "mkdir":
                self._names[place] = [{}]
            self._names[place.parent].append(self._listing(place.parent))
            return result

        return call

    @staticmethod
    def _changes_no_name(place: Path, flags: int, *_: Any) -> bool:
        return not flags & os.O_CREAT or place.exists()

    def _sync(self, descriptor: int) -> None:
        if self.is_over():
            raise PowerLoss
        inode = os.fstat(descriptor).st_ino
        self._synced[inode] = (self._kept / str(inode)).read_bytes()

    def _sync_names(self, folder: Path) -> None:
        if self.is_over():
            raise PowerLoss
        self._names[folder] = [self._listing(folder)]

    def _listing(self, folder: Path) -> dict[str, int]:
        """Return the folder's names; the inode of each file is kept, so that it stays readable here."""
        found = {entry.name: entry.inode() for entry in os.scandir(folder)}
        for name, inode in found.items():
            if (folder / name).is_file() and not (self._kept / str(inode)).exists():
                os.link(folder / name, self._kept / str(inode))
        return found

    # -- what is left

    def _take_in(self) -> None:
        """All that is in the folder is on the disk."""
        self._kept.mkdir()
        self._synced.clear()
        self._names = {Path(folder): [self._listing(Path(folder))] for folder, _, _ in os.walk(self.folder)}
        for path in self._kept.iterdir():
            self._synced[int(path.name)] = path.read_bytes()

    def _leave(self, folder: Path, left: Path, random: Random, names: str, contents: str) -> None:
        left.mkdir()
        for name, inode in _one_of(self._names[folder], random, names).items():
            if folder / name in self._names:
                self._leave(folder / name, left / name, random, names, contents)
            else:
                (left / name).write_bytes(_one_of(list(self._contents(inode, random)), random, contents))

    def _contents(self, inode: int, random: Random) -> Iterator[bytes]:
        """Yield what the file may hold, from what was synced to all that was written."""
        synced, now = self._synced.get(inode, b""), (self._kept / str(inode)).read_bytes()
        yield synced
        if now.startswith(synced) and now != synced:
            part = now[: random.randint(len(synced), len(now))]
            yield part
            yield part + bytes(len(now) - len(part))
        yield now


def _one_of(states: list[Any], random: Random, how: str) -> Any:
    return {"nothing": lambda: states[0], "all": lambda: states[-1], "some": lambda: random.choice(states)}[how]()


class TornDisk(Disk):
    """A disk of *storage*'s: when the power goes in a write, half of it was made."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, file: Any, data: bytes) -> None:
        if self._storage.is_over():
            super().write(file, data[: len(data) // 2])
            raise PowerLoss
        super().write(file, data)
