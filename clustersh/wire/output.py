"""Interleaved output on the wire: the bytes as they came, and run lengths that say whose they are.

*runs* is a sequence of unsigned LEB128 numbers: bytes of stdout, then of stderr, then of stdout, and so on (the
first may be 0). So alternating single bytes cost one byte each, and a long run of one stream next to nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator


class Stream(enum.StrEnum):
    """Which part of a job's output is meant; BOTH is the order in which it came."""

    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"


class RunsError(ValueError):
    """The run lengths don't fit the data they came with."""


def encode_number(value: int) -> bytes:
    """Return *value* (0 or more) as unsigned LEB128."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_runs(pieces: Iterable[tuple[Stream, int]]) -> bytes:
    """Return the run lengths of *pieces*: (stdout or stderr, byte count), in order; neighbours are joined."""
    encoded = bytearray()
    current, length = Stream.STDOUT, 0
    for stream, count in pieces:
        if count and stream is not current:
            encoded += encode_number(length)
            current, length = stream, 0
        length += count
    if length:
        encoded += encode_number(length)
    return bytes(encoded)


def decode_runs(runs: bytes) -> Iterator[tuple[Stream, int]]:
    """Yield (stream, byte count) for each run. Raises RunsError on a torn or oversize number."""
    value = shift = 0
    stream = Stream.STDOUT
    for byte in runs:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 56:
                raise RunsError("a run length is too large")
            continue
        yield stream, value
        stream = Stream.STDERR if stream is Stream.STDOUT else Stream.STDOUT
        value = shift = 0
    if shift:
        raise RunsError("the run lengths end in the middle of a number")


def check_runs(data: bytes, runs: bytes) -> None:
    """Raise RunsError unless *runs* are the run lengths of *data*, at a cost that grows with *data* alone."""
    # Only the first run may be empty, and a run's length takes fewer bytes than the run.
    if len(runs) > len(data) + 1 or sum(count for _, count in decode_runs(runs)) != len(data):
        raise RunsError("the run lengths don't fit the data")


def pieces(data: bytes, runs: bytes) -> Iterator[tuple[Stream, bytes]]:
    """Yield the non-empty (stream, bytes) pieces of *data*. Raises RunsError unless the lengths add up to it."""
    position = 0
    for stream, count in decode_runs(runs):
        if position + count > len(data):
            raise RunsError("the run lengths name more bytes than there are")
        if count:
            yield stream, data[position : position + count]
        position += count
    if position != len(data):
        raise RunsError("the run lengths name fewer bytes than there are")


def shorten(data: bytes, runs: bytes, length: int) -> tuple[bytes, bytes]:
    """Return the first *length* bytes of interleaved *data*, and their run lengths. Raises RunsError."""
    if length >= len(data):
        return data, runs
    kept: list[tuple[Stream, int]] = []
    left = length
    for stream, count in decode_runs(runs):
        if not left:
            break
        kept.append((stream, min(count, left)))
        left -= kept[-1][1]
    return data[:length], encode_runs(kept)


def split(data: bytes, runs: bytes) -> tuple[bytes, bytes]:
    """Return (stdout, stderr) of interleaved *data*. Raises RunsError."""
    streams = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    for stream, piece in pieces(data, runs):
        streams[stream] += piece
    return bytes(streams[Stream.STDOUT]), bytes(streams[Stream.STDERR])
