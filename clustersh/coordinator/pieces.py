"""Answers that are sent in pieces, no faster than the client takes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from ..wire.problems import ProblemError
from .bodies import ClientGone

if TYPE_CHECKING:
    from .http import Request

_log = Logger()


@implementer(IPushProducer)
class _Valve:
    """Shut by the transport while its buffer is full."""

    def __init__(self) -> None:
        self._shut = False
        self._waiter: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        self._shut = True

    def resumeProducing(self) -> None:
        self._shut = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    async def wait_open(self) -> None:
        if self._shut:
            self._waiter = Deferred()
            await self._waiter


async def send_pieces(request: Request, pieces: AsyncIterator[bytes]) -> None:
    """Write *pieces* as the body of *request*'s answer; the source is closed when the client goes.

    Where the source fails the connection is cut, so that the client sees that the answer isn't whole.
    """
    try:
        await request.unless_gone(_send(request, pieces))
    except (ClientGone, CancelledError):
        return
    except Exception as error:
        if not isinstance(error, ProblemError):
            _log.failure("an answer could not be sent to its end")
        if not request.gone:
            request.transport.abortConnection()


async def _send(request: Request, pieces: AsyncIterator[bytes]) -> None:
    valve = _Valve()
    request.registerProducer(valve, True)
    try:
        if request.method != b"HEAD":
            async for piece in pieces:
                request.write(piece)
                await valve.wait_open()
    finally:
        if not request.gone:
            request.unregisterProducer()
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
