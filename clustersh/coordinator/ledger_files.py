"""The ledger's files: which lines count, where the last of them is, and what is torn or damaged. All of it blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..wire.link import Witness
from .records import FIRST_PREV, Record, read_envelope, read_record

MAX_LINE = 8 << 20


class LedgerBroken(Exception):
    """The ledger can't be trusted as it is; the message names the file and what to do."""


@dataclass(frozen=True)
class Entry:
    """A durable record: its place in the chain, and where its line ends."""

    seq: int
    hash: str
    time: str
    file: str
    end: int
    record: Record
    line: bytes

    @property
    def offset(self) -> int:
        """Where its line begins."""
        return self.end - len(self.line) - 1


@dataclass(frozen=True)
class Head:
    """The last durable record; *file* and *end* are where the next line goes."""

    seq: int = 0
    hash: str = FIRST_PREV
    file: str = ""
    end: int = 0

    @property
    def witness(self) -> Witness:
        return Witness(self.seq, self.hash)


def read(files: Sequence[Path], start: Head) -> Iterator[Entry]:
    """Yield the entries of *files* that follow *start* (blocking). Raises LedgerBroken at the first bad one."""
    previous, expected = start.hash, start.seq + 1
    for path in files:
        if start.file and first_seq(path.name) < first_seq(start.file):
            continue
        offset = start.end if path.name == start.file else 0
        for line, end in _lines(path, offset):
            entry = _check(path, line, end, expected, previous)
            yield entry
            previous, expected = entry.hash, entry.seq + 1


def read_record_at(path: Path, offset: int) -> Record:
    """Return the record whose line begins at *offset*. Raises LedgerBroken, OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        line = file.readline(MAX_LINE)
    try:
        return read_record(line)
    except msgspec.DecodeError as error:
        raise LedgerBroken(f"{path}: there is no record at {offset}: {error}") from error


def first_seq(name: str) -> int:
    """Return the number of the first record in the file called *name*."""
    return int(name.partition("-")[0])


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield (line without newline, offset after it); a last one without a newline is yielded as it is."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(MAX_LINE):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset


def _check(path: Path, line: bytes, end: int, expected: int, previous: str) -> Entry:
    try:
        envelope, record = read_envelope(line), read_record(line)
    except msgspec.DecodeError as error:
        raise LedgerBroken(f"{path}: record {expected} can't be read: {error}") from error
    if envelope.seq != expected:
        raise LedgerBroken(f"{path}: record {expected} is missing ({envelope.seq} is there)")
    if envelope.prev != previous:
        raise LedgerBroken(f"{path}: record {expected - 1} is not the one that record {expected} was chained to")
    return Entry(expected, hashlib.sha256(line).hexdigest(), envelope.time, path.name, end, record, line)


def find_head(files: list[Path]) -> tuple[Head, Path | None, int]:
    """Return the last whole record's place, the file that has torn bytes after it, if any, and how many these are.

    Files without a line, which a coordinator made that had no room for one, may follow.
    """
    torn, cut = None, 0
    for path in reversed(files):
        head, excess = _last_record(path)
        if excess and torn is not None:
            raise _damaged(path)
        if excess:
            torn, cut = path, excess
        if head.seq:
            return head, torn, cut
    return Head(), torn, cut


def _last_record(path: Path) -> tuple[Head, int]:
    """Return the last whole record in *path* and how many torn bytes follow it.

    A bad line followed by a whole one is damage, not a torn tail, and never repaired by itself.
    """
    content = path.read_bytes()
    head, start, bad = Head(), 0, False
    while (newline := content.find(b"\n", start)) >= 0:
        line, start = content[start:newline], newline + 1
        try:
            envelope = read_envelope(line)
        except msgspec.DecodeError:
            bad = True
            continue
        if bad:
            raise _damaged(path)
        head = Head(envelope.seq, hashlib.sha256(line).hexdigest(), path.name, start)
    return head, len(content) - head.end


def _damaged(path: Path) -> LedgerBroken:
    return LedgerBroken(
        f"{path} has a damaged record before whole ones, which is never repaired by itself: "
        "restore the file from a backup"
    )


def cut_file(path: Path, length: int) -> None:
    """Make the file no longer than *length*, durably. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
