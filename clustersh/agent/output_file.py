"""A job's output on the disk: ``output`` (as it came), ``index`` (runs) and ``checkpoints``. All of it blocks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ..home import sync_folder
from ..wire.jobs import HEAD_LIMIT, OutputSummary
from ..wire.output import RunsError, Stream, decode_runs, encode_runs
from ..wire.problems import Kind
from .disk import Disk, SpaceWatch, explain
from .output_index import CHECKPOINT, WINDOW, Checkpoint, IndexTail, Sizes, decode_from, select, windows
from .records import StoreError

BLOCK = 1 << 20
"""Bytes of output that are recovered at a time."""
TAIL_WINDOW = 64 << 10


class OutputCutError(Exception):
    """The disk takes no more; the message says why, in words for `OutputSummary.cut`."""


class Part(NamedTuple):
    """Bytes of an output as they were asked for; *runs* for both streams only."""

    data: bytes
    runs: bytes


class Output(Protocol):
    """Something an output can be read from."""

    @property
    def sizes(self) -> Sizes:
        """How much can be read."""

    def read(self, stream: Stream, offset: int, length: int) -> Part:
        """Return up to *length* bytes, at least one unless *offset* is at the end. Blocks. Raises StoreError."""


class StreamHashes:
    """The SHA-256 of each stream while it grows."""

    def __init__(self) -> None:
        self._hashes = {Stream.STDOUT: hashlib.sha256(), Stream.STDERR: hashlib.sha256()}

    def update(self, pieces: Sequence[tuple[Stream, bytes]]) -> None:
        """Count *pieces* in."""
        for stream, running in self._hashes.items():
            running.update(b"".join(data for owner, data in pieces if owner is stream))

    def summary(self, sizes: Sizes, *, unindexed: int = 0, cut: str = "") -> OutputSummary:
        """Return the whole summary; a stream without a byte has no hash."""
        return OutputSummary(
            stdout_bytes=sizes.stdout,
            stderr_bytes=sizes.stderr,
            stdout_sha256=self._hashes[Stream.STDOUT].hexdigest() if sizes.stdout else "",
            stderr_sha256=self._hashes[Stream.STDERR].hexdigest() if sizes.stderr else "",
            unindexed=unindexed,
            cut=cut,
        )


class InlineOutput:
    """A small output that is in memory: *data*, and its *runs*."""

    def __init__(self, data: bytes, runs: bytes) -> None:
        self._data = data
        self._runs = list(decode_runs(runs))
        stdout = sum(count for stream, count in self._runs if stream is Stream.STDOUT)
        self.sizes = Sizes(stdout, len(data) - stdout)

    def read(self, stream: Stream, offset: int, length: int) -> Part:
        """As `Output.read`; blocks on nothing."""
        pieces = select(Checkpoint(), self._runs, stream, offset, length)
        data = b"".join(self._data[piece.start : piece.start + piece.length] for piece in pieces)
        runs = encode_runs((piece.stream, piece.length) for piece in pieces) if stream is Stream.BOTH else b""
        return Part(data, runs)


class FileOutput:
    """The output files in *folder*, *sizes* of which count."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder = folder
        self.sizes = sizes

    def read(self, stream: Stream, offset: int, length: int) -> Part:
        """As `Output.read`."""
        length = min(length, self.sizes.of(stream) - offset)
        if length <= 0:
            return Part(b"", b"")
        try:
            part = self._read(stream, offset, length)
        except (OSError, RunsError) as error:
            reason = explain(error) if isinstance(error, OSError) else "its index is damaged"
            raise StoreError(Kind.STORAGE, f"the output can't be read: {reason}", started=None) from error
        if not part.data:
            raise StoreError(Kind.STORAGE, "the output can't be read: its files are damaged", started=None)
        return part

    def _read(self, stream: Stream, offset: int, length: int) -> Part:
        start = self._checkpoint_before(stream, offset)
        with (self._folder / "index").open("rb", buffering=0) as index:
            index.seek(start.position)
            numbers = index.read(WINDOW)
        pieces = select(start, decode_from(start, numbers), stream, offset, length)
        data = bytearray()
        with (self._folder / "output").open("rb", buffering=0) as output:
            remaining = iter(pieces)
            for first, last in windows(pieces):
                block = _read_at(output, first, last - first)
                taken = first
                while taken < last:
                    piece = next(remaining)
                    data += block[piece.start - first : piece.start - first + piece.length]
                    taken = piece.start + piece.length
        runs = encode_runs((piece.stream, piece.length) for piece in pieces) if stream is Stream.BOTH else b""
        return Part(bytes(data), runs)

    def _checkpoint_before(self, stream: Stream, offset: int) -> Checkpoint:
        """Return the last checkpoint at or before *offset* of *stream* (binary search; they rise in every column)."""
        best = Checkpoint()
        try:
            file = (self._folder / "checkpoints").open("rb", buffering=0)
        except FileNotFoundError:
            return best
        with file:
            low, high = 0, os.fstat(file.fileno()).st_size // CHECKPOINT.size
            while low < high:
                middle = (low + high) // 2
                found = Checkpoint.unpack(_read_at(file, middle * CHECKPOINT.size, CHECKPOINT.size))
                if found.sizes.of(stream) <= offset and found.sizes.of(Stream.BOTH) <= self.sizes.of(Stream.BOTH):
                    best, low = found, middle + 1
                else:
                    high = middle
        return best


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
            self._output = _create(self._folder / "output")
            self._index = _create(self._folder / "index")
        return self._output, self._index

    def _add_checkpoints(self, content: bytes) -> None:
        if not content:
            return
        path = self._folder / "checkpoints"
        file = io.FileIO(path, "r+b") if self._checkpoints else _create(path)
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


def recover(folder: Path, disk: Disk) -> OutputSummary:
    """Make what an agent that died left in *folder* whole again: what the index doesn't cover becomes stdout.

    Returns the summary; an output that can't be read at all is *cut*, and says why. Raises StoreError where the
    repaired index can't be written.
    """
    try:
        file = (folder / "output").open("rb", buffering=0)
    except FileNotFoundError:
        return OutputSummary()
    except OSError as error:
        return OutputSummary(cut=explain(error))
    with file:
        try:
            return _rebuild(folder, file, disk)
        except OSError as error:
            raise StoreError(Kind.STORAGE, f"the output can't be recovered: {explain(error)}") from error


def _rebuild(folder: Path, output: io.FileIO, disk: Disk) -> OutputSummary:
    hashes, tail, unindexed = StreamHashes(), IndexTail(), 0
    new_index, new_checkpoints = folder / "index.new", folder / "checkpoints.new"
    with _create(new_index) as index, _create(new_checkpoints) as checkpoints:
        for runs, covered in _batches(folder / "index"):
            pieces = _read_pieces(output, tail.sizes.of(Stream.BOTH), runs)
            hashes.update(pieces)
            extension = tail.extend([(stream, len(data)) for stream, data in pieces])
            index.seek(extension.position)
            disk.write(index, extension.numbers)
            disk.write(checkpoints, extension.checkpoints)
            tail = extension.tail
            unindexed += 0 if covered else sum(len(data) for _, data in pieces)
            if not pieces:
                break
        for file in (index, checkpoints, output):
            disk.sync(file)
    new_index.replace(folder / "index")
    new_checkpoints.replace(folder / "checkpoints")
    sync_folder(folder)
    return hashes.summary(tail.sizes, unindexed=unindexed)


def _batches(index: Path) -> Iterator[tuple[list[tuple[Stream, int]], bool]]:
    """Yield runs of at most BLOCK bytes together: first those in *index* (True), then endlessly stdout (False)."""
    batch: list[tuple[Stream, int]] = []
    size = 0
    with contextlib.suppress(RunsError):
        for stream, count in decode_from(Checkpoint(), _bytes_of(index)):
            left = count
            while left:
                taken = min(left, BLOCK - size)
                batch.append((stream, taken))
                size += taken
                left -= taken
                if size == BLOCK:
                    yield batch, True
                    batch, size = [], 0
    if batch:
        yield batch, True
    while True:
        yield [(Stream.STDOUT, BLOCK)], False


def _bytes_of(path: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while window := file.read(WINDOW):
            yield from window


def _read_pieces(output: io.FileIO, position: int, runs: Sequence[tuple[Stream, int]]) -> list[tuple[Stream, bytes]]:
    """Read what *runs* say is at *position*; less where the output ends before."""
    block = _read_at(output, position, sum(count for _, count in runs))
    pieces: list[tuple[Stream, bytes]] = []
    start = 0
    for stream, count in runs:
        if data := block[start : start + count]:
            pieces.append((stream, data))
        start += count
    return pieces


def make_job_folder(folder: Path) -> None:
    """Make the private *folder* of a job, and its day's."""
    folder.parent.mkdir(exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)


def _create(path: Path) -> io.FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    return io.FileIO(os.open(path, flags, 0o600), "r+b")


def _read_at(file: io.FileIO, position: int, length: int) -> bytes:
    """Read *length* bytes at *position*, fewer only at the file's end."""
    file.seek(position)
    content = bytearray()
    while len(content) < length:
        block = file.read(length - len(content))
        if not block:
            break
        content += block
    return bytes(content)


def read_head(output: Output) -> Part:
    """Return the first HEAD_LIMIT bytes of both streams."""
    data = bytearray()
    runs: list[tuple[Stream, int]] = []
    wanted = min(HEAD_LIMIT, output.sizes.of(Stream.BOTH))
    while len(data) < wanted:
        part = output.read(Stream.BOTH, len(data), wanted - len(data))
        data += part.data
        runs += decode_runs(part.runs)
    return Part(bytes(data), encode_runs(runs))


def tail_window(output: Output, stream: Stream, position: int, size: int, lines: int) -> tuple[int, int]:
    """Look for the last *lines* line starts before *position* of a stream of *size* bytes, in one window of it.

    Returns where it stopped and how many are missing: with none missing, that is where those lines begin.
    """
    start = max(0, position - TAIL_WINDOW)
    data = bytearray()
    while len(data) < position - start:
        data += output.read(stream, start + len(data), position - start - len(data)).data
    search = len(data)
    while (search := data.rfind(b"\n", 0, search)) >= 0:
        if start + search + 1 < size:
            lines -= 1
            if not lines:
                return start + search + 1, 0
    return start, lines
