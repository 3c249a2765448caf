"""How far a job's output was read, by whichever way: another one can go on where the first was cut off."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from ..cli.errors import UNCERTAIN, CliError
from ..wire.output import Stream

Piece: TypeAlias = bytes | memoryview
_HEADER = struct.Struct(">BI")
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


class FrameDecoder:
    """Takes frames apart as they come (docs/rest.md); what a frame holds is passed on before it is whole."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = Stream.STDOUT
        self._left = 0

    def feed(self, data: Piece) -> Iterator[tuple[Stream, Piece]]:
        """Yield the non-empty pieces in *data*. Raises CliError where it can't be frames."""
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                self._left -= len(piece)
                position += len(piece)
                yield self._stream, piece
                continue
            missing = _HEADER.size - len(self._header)
            self._header += data[position : position + missing]
            position += missing
            if len(self._header) == _HEADER.size:
                number, self._left = _HEADER.unpack(self._header)
                if number not in _STREAMS:
                    hint = "something between here and the coordinator may have changed it: read it once more"
                    raise CliError("what the coordinator sent is no output", (hint,), status=UNCERTAIN, started=None)
                self._stream, self._header = _STREAMS[number], b""


class Reading:
    """One job's output as it is read: *length* bytes from *offset*, or its last *tail* lines.

    *position* is the offset of the next byte, *delivered* how many came; *answered*: the last answer has begun.
    """

    def __init__(
        self,
        machine: str,
        uuid: str,
        stream: Stream = Stream.BOTH,
        *,
        offset: int = 0,
        length: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> None:
        self.machine = machine
        self.uuid = uuid
        self.path = f"/v1/jobs/{quote(machine, safe='')}/{quote(uuid, safe='')}/output"
        self._stream = stream
        self._length = length
        self._tail = tail
        self._follow = follow
        self._decoder: FrameDecoder | None = None
        self.position = offset
        self.delivered = 0
        self.answered = False

    @property
    def complete(self) -> bool:
        """Whether all that was wanted has come, where that is known."""
        return self._length is not None and self.delivered >= self._length

    def ask(self) -> list[tuple[str, str]]:
        """Return the query for what is still to come."""
        self.answered = False
        self._decoder = FrameDecoder() if self._stream is Stream.BOTH else None
        query = [("stream", self._stream.value)]
        if self._tail is not None:
            query.append(("tail", str(self._tail)))
        else:
            query.append(("offset", str(self.position)))
        if self._length is not None:
            query.append(("length", str(self._length - self.delivered)))
        if self._follow:
            query.append(("follow", "true"))
        return query

    def begin(self, headers: Mapping[str, str]) -> None:
        """Take note of an answer's *headers* (lower-case names)."""
        self.answered = True
        if self._tail is not None and headers.get("clustersh-offset", "").isdigit():
            self.position, self._tail = int(headers["clustersh-offset"]), None

    def pieces(self, data: Piece) -> Iterator[tuple[Stream, Piece]]:
        """Yield what is in *data*; each counts once it is done with."""
        for stream, piece in self._decoder.feed(data) if self._decoder else ((self._stream, data),):
            yield stream, piece
            self.position += len(piece)
            self.delivered += len(piece)


class Part(NamedTuple):
    """Which part of an output is wanted: *tail* lines from its end, or *length* bytes from *offset* on."""

    stream: Stream
    tail: int | None
    offset: int
    length: int | None

    @property
    def to_stdout(self) -> bool:
        """Whether stderr goes to stdout: where it is all that is wanted, so that a pipe behind `cat` reads it."""
        return self.stream is Stream.STDERR

    def of(self, machine: str, uuid: str) -> Reading:
        """Return the reading of this part of that job's output."""
        return Reading(machine, uuid, self.stream, offset=self.offset, length=self.length, tail=self.tail)
