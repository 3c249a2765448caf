"""The job store's journal: append-only JSON lines, the durable truth for what is open or not acknowledged.

It never grows with history: at 4 MiB a new file is begun with only the jobs that still matter, and the old one
(``journal.old``) goes once the other jobs' ``job.json`` are on the disk. All of it blocks, and runs in one thread.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..home import sync_folder
from ..wire.problems import Kind
from .disk import Disk, explain
from .records import Entry, RunningEntry, StoreError

ROTATE_AT = 4 << 20
KEPT_TORN = 8

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class Item(NamedTuple):
    """One line of the job *uuid*; *durable*: fsync before it counts. *forget*: the job's lines matter no more."""

    uuid: str
    line: bytes = b""
    durable: bool = False
    forget: bool = False


def entry_uuid(entry: Entry) -> str:
    """Return which job *entry* is of."""
    return entry.record.uuid if isinstance(entry, RunningEntry) else entry.uuid


class Journal:
    """``journal`` in *folder*. *on_rotated* gets the forgotten jobs: then call `settled`."""

    def __init__(
        self, folder: Path, disk: Disk, on_rotated: Callable[[list[str]], None], rotate_at: int = ROTATE_AT
    ) -> None:
        self._folder = folder
        self._path = folder / "journal"
        self._old = folder / "journal.old"
        self._new = folder / "journal.new"
        self._disk = disk
        self._on_rotated = on_rotated
        self._rotate_at = rotate_at
        self._next_rotation = rotate_at
        self._file: io.FileIO | None = None
        self._good = 0
        self._live: dict[str, list[bytes]] = {}
        self._forgotten: list[str] = []
        self._unsettled: list[str] = []
        self._settling = False
        self._renamed = False
        self.last_trace = 0.0
        """When the last agent wrote to it (wall-clock seconds); known once opened."""

    @property
    def exists(self) -> bool:
        """Whether there is a journal, of this agent or an earlier one."""
        return self._path.exists() or self._old.exists()

    def open(self) -> list[Entry]:
        """Return what the last agent left, oldest first; damaged lines are set aside. Raises StoreError."""
        try:
            if self._old.exists() and not self._path.exists():
                self._old.replace(self._path)
            if self._path.exists():
                self.last_trace = self._path.stat().st_mtime
            entries = self._replay(self._old) if self._old.exists() else []
            self._path.touch(mode=0o600)
            entries += self._replay(self._path)
            self._good = self._path.stat().st_size
            self._disk.sync(self._ready())
            sync_folder(self._folder)
        except OSError as error:
            raise self._error(error) from error
        return entries

    def append(self, batch: Sequence[Item]) -> Sequence[None]:
        """Write *batch*; where any line of it must be durable, all of it is. Raises StoreError: none of it counts."""
        content = b"".join(item.line for item in batch)
        try:
            file = self._ready()
            self._disk.write(file, content)
            if any(item.durable for item in batch):
                self._disk.sync(file)
                self._sync_names()
        except OSError as error:
            self._shut()
            raise self._error(error) from error
        self._good += len(content)
        for item in batch:
            self._note(item)
        if self._good >= self._next_rotation:
            self.rotate()
        return [None] * len(batch)

    def tidy(self) -> None:
        """Begin a new file if the last agent left what matters no more."""
        if self._forgotten or self._old.exists():
            self.rotate()

    def rotate(self) -> None:
        """Begin a new file where the disk lets us (else later), and ask to settle what only the old one holds."""
        self._next_rotation = self._good + self._rotate_at
        if self._settling or not (self._old.exists() or self._begin_new()):
            return
        self._settling = True
        self._unsettled += self._forgotten
        self._forgotten = []
        self._on_rotated(list(self._unsettled))

    def settled(self, durable: bool) -> None:
        """Whether every job that *on_rotated* named is durable elsewhere; if so, the old file goes."""
        self._settling = False
        if durable:
            with contextlib.suppress(OSError):
                self._old.unlink(missing_ok=True)
                self._unsettled = []

    def _begin_new(self) -> bool:
        snapshot = self._snapshot()
        try:
            self._write_new(snapshot)
            self._shut()
            self._path.replace(self._old)
            self._take_new(snapshot)
            self._sync_names()
        except OSError:
            return False
        self._next_rotation = max(self._rotate_at, 2 * len(snapshot))
        return True

    def _take_new(self, content: bytes) -> None:
        """Let the new file, which holds *content*, be the journal; nothing in it is durable before its name is."""
        self._new.replace(self._path)
        self._good = len(content)
        self._renamed = True

    def _sync_names(self) -> None:
        if self._renamed:
            sync_folder(self._folder)
            self._renamed = False

    def close(self) -> None:
        """Let go of the file."""
        self._shut()

    def _snapshot(self) -> bytes:
        return b"".join(line for lines in self._live.values() for line in lines)

    def _note(self, item: Item) -> None:
        if item.forget:
            self._live.pop(item.uuid, None)
            self._forgotten.append(item.uuid)
        else:
            self._live.setdefault(item.uuid, []).append(item.line)

    def _ready(self) -> io.FileIO:
        """Return the file, cut back to what counts if the last write failed, made again if somebody took it away."""
        if self._file is not None and not self._is_in_place(self._file):
            self._make_again()
        if self._file is None:
            if not self._path.exists() and self._old.exists():
                self._old.replace(self._path)
            if not self._path.exists():
                self._make_again()
            file = io.FileIO(self._path, "r+b")
            try:
                file.truncate(self._good)
                file.seek(self._good)
            except OSError:
                file.close()
                raise
            self._file = file
        return self._file

    def _make_again(self) -> None:
        snapshot = self._snapshot()
        self._write_new(snapshot)
        file, self._file = self._file, None
        if file is not None:
            file.close()
        self._take_new(snapshot)

    def _is_in_place(self, file: io.FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _shut(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            file.truncate(self._good)
        with contextlib.suppress(OSError):
            file.close()

    def _replay(self, path: Path) -> list[Entry]:
        content = path.read_bytes()
        entries: list[Entry] = []
        good: list[bytes] = []
        damaged: list[bytes] = []
        for line in content.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise msgspec.DecodeError("a torn line")
                entry = _decoder.decode(line)
            except (msgspec.DecodeError, RecursionError, ValueError):
                damaged.append(line)
                continue
            entries.append(entry)
            good.append(line)
        for entry, line in zip(entries, good, strict=True):
            lines = self._live.setdefault(entry_uuid(entry), [])
            if line not in lines:
                lines.append(line)
        if damaged:
            self._set_aside(b"".join(damaged))
            self._write_new(b"".join(good))
            self._new.replace(path)
        return entries

    def _set_aside(self, damaged: bytes) -> None:
        names = [self._folder / f"journal.torn-{number}" for number in range(1, KEPT_TORN + 1)]
        path = next((name for name in names if not name.exists()), names[-1])
        with io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            self._disk.write(file, damaged)

    def _write_new(self, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            with io.FileIO(os.open(self._new, flags, 0o600), "w") as file:
                self._disk.write(file, content)
                self._disk.sync(file)
        except OSError:
            with contextlib.suppress(OSError):
                self._new.unlink()  # on a full disk its space is dear
            raise

    def _error(self, error: OSError) -> StoreError:
        return StoreError(Kind.STORAGE, f"the job store can't be written: {explain(error)}")
