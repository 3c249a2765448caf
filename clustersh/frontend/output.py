"""A job's output from the coordinator, byte for byte: taken up again at its offset where the connection was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ..cli.console import Console
from ..rest_client import RestClient, Unreachable
from ..wire.output import Stream
from ..wire.problems import ProblemError
from ..wire.rest import Job
from .reading import Piece, Reading
from .retry import GaveUp, Retry
from .show import Form, Printer, heads_suffice, order_matters, print_heads, wanted_bytes

Sink: TypeAlias = Callable[[Stream, Piece], Awaitable[None]]


class OutputReader:
    """Does one *reading*, once."""

    def __init__(self, client: RestClient, retry: Retry, reading: Reading, sink: Sink) -> None:
        self._client = client
        self._retry = retry
        self._reading = reading
        self._sink = sink

    async def read(self) -> None:
        """Give it all to the sink. Raises GaveUp, Unreachable, ProblemError, and what the sink raises."""
        while not await self._retry(self._attempt):
            await self._retry.pause()

    async def _attempt(self) -> bool:
        """Ask once, from where we are; False where the answer began and was cut off (or a followed job is silent)."""
        reading = self._reading
        if reading.complete:
            return True
        failures: list[Exception] = []

        async def collect(data: bytes) -> None:
            try:
                for stream, piece in reading.pieces(data):
                    await self._sink(stream, piece)
            except Exception as error:
                failures.append(error)
                raise

        try:
            await self._client.stream("GET", reading.path, collect, query=reading.ask(), begin=reading.begin)
        except Exception as error:
            if failures:
                raise failures[0] from None
            if isinstance(error, Unreachable) and reading.answered:
                return False
            raise
        return True


async def print_output(
    client: RestClient, retry: Retry, console: Console, job: Job, form: Form, printer: Printer
) -> str:
    """Print the output of *job* up to the limit, from where *printer* stands; return why some of it can't be read.

    It takes what came with the job, or reads from the machine what that doesn't tell: more of it, or its order.
    """
    begun, unread = printer.printed, ""
    wanted, suffices = wanted_bytes(job, form), heads_suffice(job, form, begun)
    if wanted > begun and (order_matters(job, form, printer, console) or not suffices):
        reading = Reading(job.machine, job.uuid, offset=begun, length=wanted - begun)
        try:
            await OutputReader(client, retry, reading, printer).read()
        except (GaveUp, ProblemError, Unreachable) as error:
            unread = str(error)
    if wanted and not printer.printed:
        await print_heads(job, form, printer)
        return "" if suffices else unread
    return unread
