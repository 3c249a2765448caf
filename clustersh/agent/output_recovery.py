"""What a job printed before its agent died, made whole again. All of it blocks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..home import sync_folder
from ..wire.jobs import OutputSummary
from ..wire.output import RunsError, Stream
from ..wire.problems import Kind
from .disk import Disk, explain
from .output_file import StreamHashes, create_private
from .output_index import WINDOW, Checkpoint, IndexTail, decode_from
from .output_read import read_at
from .records import StoreError

BLOCK = 1 << 20
"""Bytes of output that are read at a time."""


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
    with create_private(new_index) as index, create_private(new_checkpoints) as checkpoints:
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
    block = read_at(output, position, sum(count for _, count in runs))
    pieces: list[tuple[Stream, bytes]] = []
    start = 0
    for stream, count in runs:
        if data := block[start : start + count]:
            pieces.append((stream, data))
        start += count
    return pieces
