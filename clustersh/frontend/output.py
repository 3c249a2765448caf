"""A job's output from the coordinator, byte for byte: taken up again at its offset where the connection was lost."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import quote

from ..cli.console import Console
from ..cli.errors import UNCERTAIN, CliError
from ..rest_client import RestClient, Unreachable
from ..wire.output import Stream
from ..wire.problems import ProblemError
from ..wire.rest import Job
from .retry import GaveUp, Retry
from .show import Form, Printer, heads_suffice, order_matters, print_heads, wanted_bytes

Sink: TypeAlias = Callable[[Stream, bytes], Awaitable[None]]
_HEADER = struct.Struct(">BI")
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


class FrameDecoder:
    """Takes frames apart as they come (docs/rest.md); what a frame holds is passed on before it is whole."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = Stream.STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[Stream, bytes]]:
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
                    raise CliError("what the coordinator sent is no output", status=UNCERTAIN, started=None)
                self._stream, self._header = _STREAMS[number], b""


class OutputReader:
    """Reads one job's output, once. *position* is the offset of the next byte, *delivered* how many came."""

    def __init__(
        self,
        client: RestClient,
        retry: Retry,
        machine: str,
        uuid: str,
        sink: Sink,
        *,
        stream: Stream = Stream.BOTH,
        offset: int = 0,
        length: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> None:
        self._client = client
        self._retry = retry
        self._path = f"/v1/jobs/{quote(machine, safe='')}/{quote(uuid, safe='')}/output"
        self._sink = sink
        self._stream = stream
        self._length = length
        self._tail = tail
        self._follow = follow
        self._answered = False
        self.position = offset
        self.delivered = 0

    async def read(self) -> None:
        """Give it all to the sink. Raises GaveUp, Unreachable, ProblemError, and what the sink raises."""
        while not await self._retry(self._attempt):
            await self._retry.pause()

    async def _attempt(self) -> bool:
        """Ask once, from where we are; False where the answer began and was cut off (or a followed job is silent)."""
        if self._length is not None and self.delivered >= self._length:
            return True
        self._answered = False
        decoder = FrameDecoder() if self._stream is Stream.BOTH else None
        failures: list[Exception] = []

        async def collect(data: bytes) -> None:
            try:
                for stream, piece in decoder.feed(data) if decoder else [(self._stream, data)]:
                    await self._sink(stream, piece)
                    self.position += len(piece)
                    self.delivered += len(piece)
            except Exception as error:
                failures.append(error)
                raise

        try:
            await self._client.stream("GET", self._path, collect, query=self._query(), begin=self._begin)
        except Exception as error:
            if failures:
                raise failures[0] from None
            if isinstance(error, Unreachable) and self._answered:
                return False
            raise
        return True

    def _begin(self, headers: Mapping[str, str]) -> None:
        self._answered = True
        if self._tail is not None and headers.get("clustersh-offset", "").isdigit():
            self.position, self._tail = int(headers["clustersh-offset"]), None

    def _query(self) -> list[tuple[str, str]]:
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


async def print_output(
    client: RestClient, retry: Retry, console: Console, job: Job, form: Form, printer: Printer
) -> str:
    """Print the output of *job* up to the limit, from where *printer* stands; return why some of it can't be read.

    It takes what came with the job, or reads from the machine what that doesn't tell: more of it, or its order.
    """
    begun, unread = printer.printed, ""
    wanted, suffices = wanted_bytes(job, form), heads_suffice(job, form, begun)
    if wanted > begun and (order_matters(job, form, printer, console) or not suffices):
        reader = OutputReader(client, retry, job.machine, job.uuid, printer, offset=begun, length=wanted - begun)
        try:
            await reader.read()
        except (GaveUp, ProblemError, Unreachable) as error:
            unread = str(error)
    if wanted and not printer.printed:
        await print_heads(job, form, printer)
        return "" if suffices else unread
    return unread
