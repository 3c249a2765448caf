"""Readers of output over one link: a few at a time, each answer sent only when there is room for it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, TimeoutError
from twisted.logger import Logger

from ..wire.link import MAX_READS, Chunk, Failed, FromAgent, Read
from ..wire.problems import Kind, ProblemError
from .output_read import OutputPart
from .store import JobStore

MAX_WAIT_S = 60.0

log = Logger()


class Reads:
    """Answers the Reads of one link. *room* waits until the transport takes data, so control frames go first."""

    def __init__(
        self, reactor: Any, store: JobStore, send: Callable[[FromAgent], None], room: Callable[[], Awaitable[None]]
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._send = send
        self._room = room
        self._turn = DeferredLock()
        self._open: dict[int, Deferred[None]] = {}

    def read(self, message: Read) -> None:
        """Answer *message*, at once or when there is something to tell."""
        number = message.request
        if number in self._open or len(self._open) >= MAX_READS:
            self._send(Failed(number, Kind.RATE_LIMITED.value, "too many reads at once"))
            return
        reading = Deferred.fromCoroutine(self._answer(message))
        if not reading.called:
            self._open[number] = reading
        reading.addBoth(self._over, number)

    def _over(self, _: None, number: int) -> None:
        self._open.pop(number, None)

    def stop(self, request: int) -> None:
        """Nobody waits for that answer any more."""
        if request in self._open:
            self._open[request].cancel()

    def stop_all(self) -> None:
        """The link is gone."""
        for reading in list(self._open.values()):
            reading.cancel()

    async def _answer(self, message: Read) -> None:
        try:
            if message.tail_lines > 0:
                await self._answer_tail(message)
            else:
                await self._answer_data(message)
        except ProblemError as error:
            self._send(Failed(message.request, error.problem.type, error.problem.detail))
        except CancelledError:
            return
        except Exception:
            log.failure("a read of {uuid} failed", uuid=message.uuid)
            self._send(Failed(message.request, Kind.INTERNAL.value, "internal error of the agent"))

    async def _answer_tail(self, message: Read) -> None:
        offset = await self._store.tail_offset(message.uuid, message.stream, message.tail_lines)
        part = await self._store.read(message.uuid, message.stream, offset, 1)
        self._send(Chunk(message.request, offset, b"", part.size, part.ended))

    async def _answer_data(self, message: Read) -> None:
        if message.wait_s > 0:
            part = await self._store.read(message.uuid, message.stream, message.offset, 1)
            if not part.data and not part.ended:
                await self._wait(message)
        # One at a time: together they would fill the link with what others wait behind.
        async with self._turn:
            await self._room()
            part = await self._read(message)
            self._send(Chunk(message.request, part.offset, part.data, part.size, part.ended, part.runs))

    async def _read(self, message: Read) -> OutputPart:
        return await self._store.read(message.uuid, message.stream, message.offset, message.length)

    async def _wait(self, message: Read) -> None:
        more = self._store.wait_for_more(message.uuid, message.offset, message.stream)
        with contextlib.suppress(TimeoutError):
            await more.addTimeout(min(message.wait_s, MAX_WAIT_S), self._reactor)
