"""A job's output on the disk: ``output`` (as it came), ``index`` (runs) and ``checkpoints``. All of it blocks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..home import sync_folder
from ..wire.jobs import OutputSummary
from ..wire.output import Stream
from .disk import Disk, SpaceWatch, explain
from .output_index import IndexTail, Sizes
from .output_read import FileOutput, Part


class OutputCutError(Exception):
    """The disk takes no more; the message says why, in words for `OutputSummary.cut`."""


class StreamHashes:
    """The SHA-256 of each stream while it grows."""

    def __init__(self) -> None:
        self._hashes: dict[Stream, Any] = {}

    def update(self, pieces: Sequence[tuple[Stream, bytes]]) -> None:
        """Count *pieces* in."""
        for stream in {owner for owner, data in pieces if data}:
            running = self._hashes.setdefault(stream, hashlib.sha256())
            running.update(b"".join(data for owner, data in pieces if owner is stream))

    def summary(self, sizes: Sizes, *, unindexed: int = 0, cut: str = "") -> OutputSummary:
        """Return the whole summary; a stream without a byte has no hash."""
        return OutputSummary(
            stdout_bytes=sizes.stdout,
            stderr_bytes=sizes.stderr,
            stdout_sha256=self._of(Stream.STDOUT),
            stderr_sha256=self._of(Stream.STDERR),
            unindexed=unindexed,
            cut=cut,
        )

    def _of(self, stream: Stream) -> str:
        return self._hashes[stream].hexdigest() if stream in self._hashes else ""


class GrowingOutput:
    """The output files of a live job. Written by one thread at a time, read by others meanwhile."""

    def __init__(self, folder: Path, disk: Disk, space: SpaceWatch) -> None:
        self._folder = folder
        self._disk = disk
        self._space = space
        self._lock = threading.Lock()
        self._hashes = StreamHashes()
        self._tail = IndexTail()
        self._checkpoints = 0
        self._output: io.FileIO | None = None
        self._index: io.FileIO | None = None

    @property
    def sizes(self) -> Sizes:
        """How much is in the files."""
        return self._tail.sizes

    def append(self, pieces: Sequence[tuple[Stream, bytes]]) -> None:
        """Write *pieces*, the output before its index. Raises OutputCutError: then none of them counts."""
        data = b"".join(piece for _, piece in pieces)
        problem = self._space.problem(len(data))
        if problem:
            raise OutputCutError(problem)
        extension = self._tail.extend([(stream, len(piece)) for stream, piece in pieces])
        with self._lock:
            try:
                output, index = self._files()
                self._disk.write(output, data)
                index.seek(extension.position)
                self._disk.write(index, extension.numbers)
                self._add_checkpoints(extension.checkpoints)
            except OSError as error:
                self._cut_back()
                raise OutputCutError(explain(error)) from error
            self._tail = extension.tail
        self._hashes.update(pieces)

    def read(self, stream: Stream, offset: int, length: int) -> Part:
        """As `Output.read`."""
        with self._lock:
            return FileOutput(self._folder, self._tail.sizes).read(stream, offset, length)

    def close(self, cut: str) -> OutputSummary:
        """Put the files on the disk, and sum up; *cut* is why some output was dropped, if so."""
        output, index = self._output, self._index
        self._output = self._index = None
        try:
            for file in (output, index):
                if file is not None:
                    self._disk.sync(file)
            if self._checkpoints:
                with io.FileIO(self._folder / "checkpoints", "r+b") as checkpoints:
                    self._disk.sync(checkpoints)
            if output is not None:
                sync_folder(self._folder)
                sync_folder(self._folder.parent)
        except OSError as error:
            cut = cut or explain(error)
        for file in (output, index):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        return self._hashes.summary(self._tail.sizes, cut=cut)

    def _files(self) -> tuple[io.FileIO, io.FileIO]:
        if self._output is None or self._index is None:
            make_job_folder(self._folder)
            self._output = create_private(self._folder / "output")
            self._index = create_private(self._folder / "index")
        return self._output, self._index

    def _add_checkpoints(self, content: bytes) -> None:
        if not content:
            return
        path = self._folder / "checkpoints"
        file = io.FileIO(path, "r+b") if self._checkpoints else create_private(path)
        with file:
            file.seek(self._checkpoints)
            self._disk.write(file, content)
        self._checkpoints += len(content)

    def _cut_back(self) -> None:
        """Make the files as they were before the write that failed, as far as the disk lets us."""
        tail = self._tail
        if self._output is not None:
            with contextlib.suppress(OSError):
                self._output.truncate(tail.sizes.of(Stream.BOTH))
        if self._index is not None:
            with contextlib.suppress(OSError):
                self._index.seek(tail.position)
                self._disk.write(self._index, tail.extend(()).numbers)
                self._index.truncate()


def make_job_folder(folder: Path) -> None:
    """Make the private *folder* of a job, its day's, and that of all jobs if somebody took it away."""
    with contextlib.suppress(FileExistsError):
        try:
            folder.mkdir(0o700)  # what is missing is nearly always this one alone
        except FileNotFoundError:
            for path in (folder.parent.parent, folder.parent, folder):
                path.mkdir(exist_ok=True, mode=0o700)


def create_private(path: Path) -> io.FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    return io.FileIO(os.open(path, flags, 0o600), "r+b")
