"""Whose bytes are whose in an interleaved output: its run-length index, and checkpoints into that. No I/O.

The index is `clustersh.wire.output`'s runs: LEB128 lengths of stdout, stderr, stdout, and so on. Its last number is
written again in place while that run grows, so the index covers the output after every write. A checkpoint, three
64-bit numbers, stands at the start of a run every few KiB of index: how much of stdout and stderr came before, and
where in the index the run's number is (shifted left by one; the lowest bit says that it is stderr's).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..wire.output import RunsError, Stream, encode_number

CHECKPOINT_EVERY = 4 << 10
"""Bytes of index between checkpoints."""
CHECKPOINT = struct.Struct("<3Q")
WINDOW = 64 << 10
"""Bytes of index that one read looks at."""
MERGE_GAP = 512
"""Pieces of one stream that are this near are read from the disk together."""


class Sizes(NamedTuple):
    """Bytes of each stream."""

    stdout: int = 0
    stderr: int = 0

    def of(self, stream: Stream) -> int:
        """Return the length of *stream*."""
        if stream is Stream.BOTH:
            return self.stdout + self.stderr
        return self.stdout if stream is Stream.STDOUT else self.stderr


NO_BYTES = Sizes()


class Extension(NamedTuple):
    """What to write to the index at *position*, and to append to the checkpoints; *tail* holds afterwards."""

    tail: IndexTail
    position: int
    numbers: bytes
    checkpoints: bytes


@dataclass(frozen=True, slots=True)
class IndexTail:
    """The end of an index that grows: its last run (*length* bytes of *stream*), whose number is at *position*."""

    position: int = 0
    stream: Stream = Stream.STDOUT
    length: int = 0
    sizes: Sizes = NO_BYTES
    checkpointed: int = 0

    def extend(self, pieces: Iterable[tuple[Stream, int]]) -> Extension:
        """Return what (stdout or stderr, byte count) *pieces* add."""
        numbers, checkpoints = bytearray(), bytearray()
        stream, length, checkpointed = self.stream, self.length, self.checkpointed
        stdout, stderr = self.sizes
        start = self.position
        for owner, count in pieces:
            if owner is not stream and count:
                numbers += encode_number(length)
                start = self.position + len(numbers)
                stream, length = owner, 0
                if start - checkpointed >= CHECKPOINT_EVERY:
                    checkpoints += CHECKPOINT.pack(stdout, stderr, start << 1 | (owner is Stream.STDERR))
                    checkpointed = start
            length += count
            if owner is Stream.STDOUT:
                stdout += count
            else:
                stderr += count
        tail = replace(
            self,
            position=start,
            stream=stream,
            length=length,
            sizes=Sizes(stdout, stderr),
            checkpointed=checkpointed,
        )
        return Extension(tail, self.position, bytes(numbers) + encode_number(length), bytes(checkpoints))


class Checkpoint(NamedTuple):
    """A run's start: *sizes* before it, where its number is in the index, and whose it is."""

    sizes: Sizes = NO_BYTES
    position: int = 0
    stream: Stream = Stream.STDOUT

    @classmethod
    def unpack(cls, content: bytes) -> Checkpoint:
        """Read what `IndexTail.extend` made."""
        stdout, stderr, place = CHECKPOINT.unpack(content)
        return cls(Sizes(stdout, stderr), place >> 1, Stream.STDERR if place & 1 else Stream.STDOUT)


class Piece(NamedTuple):
    """*length* bytes of *stream* (stdout or stderr) from *start* of the interleaved output."""

    stream: Stream
    start: int
    length: int


def decode_from(start: Checkpoint, numbers: Iterable[int]) -> Iterator[tuple[Stream, int]]:
    """Yield the runs in the bytes *numbers*, read from the index at *start*; what is torn at the end is left out.

    Raises RunsError where a number is too large.
    """
    stream, value, shift = start.stream, 0, 0
    for byte in numbers:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 56:
                raise RunsError("a run length is too large")
            continue
        yield stream, value
        stream = Stream.STDERR if stream is Stream.STDOUT else Stream.STDOUT
        value = shift = 0


def select(
    start: Checkpoint, runs: Iterable[tuple[Stream, int]], stream: Stream, offset: int, length: int
) -> list[Piece]:
    """Return where up to *length* bytes of *stream* from its *offset* are; *runs* begin at *start*, at or before it."""
    pieces: list[Piece] = []
    place = start.sizes.of(Stream.BOTH)
    passed = start.sizes.of(stream)
    end = offset + length
    cost = 0
    for owner, count in runs:
        if stream is Stream.BOTH or owner is stream:
            first, last = max(passed, offset), min(passed + count, end)
            if first < last:
                pieces.append(Piece(owner, place + first - passed, last - first))
            passed += count
            cost += count
        elif pieces:
            cost += min(count, MERGE_GAP)
        place += count
        if passed >= end or (pieces and cost > 4 * length + WINDOW):
            break
    return pieces


def windows(pieces: list[Piece]) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of what to read from the output at once to get at *pieces*."""
    start = end = -1
    for piece in pieces:
        if start >= 0 and piece.start - end <= MERGE_GAP:
            end = piece.start + piece.length
            continue
        if start >= 0:
            yield start, end
        start, end = piece.start, piece.start + piece.length
    if start >= 0:
        yield start, end
