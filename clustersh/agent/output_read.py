"""Reading output: from memory, or from a job's files at any offset of either stream. All of it blocks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ..wire.jobs import HEAD_LIMIT
from ..wire.output import RunsError, Stream, decode_runs, encode_runs
from ..wire.problems import Kind
from .disk import explain
from .output_index import CHECKPOINT, WINDOW, Checkpoint, Piece, Sizes, decode_from, select, windows
from .records import StoreError

TAIL_WINDOW = 64 << 10


class Part(NamedTuple):
    """Bytes of an output as they were asked for; *runs* for both streams only."""

    data: bytes
    runs: bytes


class OutputPart(NamedTuple):
    """Output from *offset* of the stream that was asked for; *runs* only for both.

    *size* is the stream's length so far; *ended* says that it grows no more. *data* may be shorter than asked for,
    and is empty only where *offset* is at or past *size*.
    """

    offset: int
    data: bytes
    runs: bytes
    size: int
    ended: bool


class Output(Protocol):
    """Something an output can be read from."""

    @property
    def sizes(self) -> Sizes:
        """How much can be read."""

    def read(self, stream: Stream, offset: int, length: int) -> Part:
        """Return up to *length* bytes, at least one unless *offset* is at the end. Blocks. Raises StoreError."""


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
        with (self._folder / "output").open("rb", buffering=0) as output:
            data = b"".join(_data_of(output, pieces))
        runs = encode_runs((piece.stream, piece.length) for piece in pieces) if stream is Stream.BOTH else b""
        return Part(data, runs)

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
                found = Checkpoint.unpack(read_at(file, middle * CHECKPOINT.size, CHECKPOINT.size))
                if found.sizes.of(stream) <= offset and found.sizes.of(Stream.BOTH) <= self.sizes.of(Stream.BOTH):
                    best, low = found, middle + 1
                else:
                    high = middle
        return best


def _data_of(output: io.FileIO, pieces: list[Piece]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of *pieces*; one that is a whole read is not copied."""
    remaining = iter(pieces)
    for first, last in windows(pieces):
        block = read_at(output, first, last - first)
        taken = first
        while taken < last:
            piece = next(remaining)
            start = piece.start - first
            yield block if piece.length == len(block) else memoryview(block)[start : start + piece.length]
            taken = piece.start + piece.length


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


def read_at(file: io.FileIO, position: int, length: int) -> bytes:
    """Read *length* bytes at *position*, fewer only at the file's end."""
    file.seek(position)
    blocks: list[bytes] = []
    while length and (block := file.read(length)):
        blocks.append(block)
        length -= len(block)
    return b"".join(blocks)
