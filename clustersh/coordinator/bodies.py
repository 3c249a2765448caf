"""Request bodies that are taken in pieces: the sender waits while what it sent is being worked on."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer

HIGH_WATER = 512 << 10
"""Bytes that wait before the sender is paused; what the network delivered in one go may come on top."""
LOW_WATER = 128 << 10


class ClientGone(Exception):
    """The client closed its connection before the end."""


class BodyStream:
    """The pieces of one body, to be iterated over once; raises ClientGone if the sender leaves before the end.

    *size* is how many bytes are to come, *queued* how many wait; *complete* says that all have come.
    """

    def __init__(self, transport: IPushProducer, size: int) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._paused = False
        self._ended = False
        self._gone = False
        self._waiter: Deferred[None] | None = None
        self.size = size
        self.queued = 0
        self.complete = False

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._gone:
                raise ClientGone
            if self._ended:
                raise StopAsyncIteration
            self._waiter = Deferred()
            await self._waiter
        piece = self._pieces.popleft()
        self.queued -= len(piece)
        if self._paused and self.queued <= LOW_WATER:
            self._resume()
        return piece

    def received(self, data: bytes) -> None:
        """Take a piece in."""
        if self._ended or not data:
            return
        self._pieces.append(data)
        self.queued += len(data)
        if not self._paused and self.queued >= HIGH_WATER:
            self._paused = True
            self._transport.pauseProducing()
        self._wake()

    def ended(self) -> None:
        """There are no more pieces."""
        self._ended = self.complete = True
        self._wake()

    def lost(self) -> None:
        """The sender is gone; what came is of no use."""
        self._gone = not self.complete
        self._drop()

    def discard(self) -> None:
        """Nobody reads the rest: what comes is dropped."""
        self._drop()
        self._resume()

    def _drop(self) -> None:
        self._ended = True
        self._pieces.clear()
        self.queued = 0
        self._wake()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)
