"""Bodies of HTTP requests and answers that are larger than memory should be: both sides wait for each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

Collector = Callable[[bytes], Awaitable[None] | None]
"""Takes a piece of a large answer; the next one waits until what it returns is done."""

HIGH_WATER = 1 << 20
"""Bytes that wait for a collector before no more are read; what the network delivered in one go may come on top."""


class Watch:
    """Calls *expire* once *seconds* passed without a `touch`. *expired* says that it did."""

    def __init__(self, reactor: IReactorTime, seconds: float, expire: Callable[[], object]) -> None:
        self.seconds = seconds
        self.expired = False
        self._expire = expire
        self._call: IDelayedCall | None = reactor.callLater(seconds, self._run)
        self._reactor = reactor

    def touch(self) -> None:
        """Begin again; also after a `stop`."""
        if self._call is not None and self._call.active():
            self._call.reset(self.seconds)
        elif not self.expired:
            self._call = self._reactor.callLater(self.seconds, self._run)

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _run(self) -> None:
        self.expired = True
        self._expire()


class BodyReader(Protocol):
    """Gives an answer's body to *collect*, in order; `done` fires at its end.

    What comes while *collect* works is its next piece, as a whole: so one that takes its time for each piece gets
    few and large ones. *progress* is called with True when the network is waited for, with False while *collect* works.
    """

    def __init__(self, collect: Collector, progress: Callable[[bool], None]) -> None:
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._collect = collect
        self._progress = progress
        self._pieces: list[bytes] = []
        self._queued = 0
        self._draining = False
        self._paused = False
        self._end: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Keep *data* until its turn."""
        self._pieces.append(data)
        self._queued += len(data)
        if not self._draining:
            self._draining = True
            Deferred.fromCoroutine(self._drain()).addErrback(self._fail)
        elif self._queued >= HIGH_WATER and not self._paused:
            self._paused = True
            self._producer().pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end; it is told once every piece was collected."""
        self._end = reason
        if not self._draining:
            self._finish()

    async def _drain(self) -> None:
        working = False
        while self._pieces:
            waiting = self._collect(self._take())
            if waiting is None:
                continue
            if not working:
                working = True
                self._progress(False)
            await waiting
        self._draining = False
        self._progress(True)
        if self._end is not None:
            self._finish()

    def _take(self) -> bytes:
        """Return all that waits; the network may go on."""
        pieces, self._pieces, self._queued = self._pieces, [], 0
        if self._paused:
            self._paused = False
            if self._end is None:
                self._producer().resumeProducing()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _finish(self) -> None:
        assert self._end is not None
        if self.done.called:
            return
        if isinstance(self._end.value, ResponseDone):
            self.done.callback(None)
        else:
            self.done.errback(self._end)

    def _fail(self, failure: Failure) -> None:
        if not self.done.called:
            self.done.errback(failure)
        self._abort()

    def _cancelled(self, _done: Deferred[None]) -> None:
        self._pieces.clear()
        self._abort()

    def _abort(self) -> None:
        producer = self._producer()
        producer.resumeProducing()
        producer.stopProducing()

    def _producer(self) -> IPushProducer:
        # What twisted.web gives as an answer's transport is a push producer, though it doesn't say so.
        return cast(IPushProducer, self.transport)


@implementer(IBodyProducer)
class WholeBody:
    """Writes *content* at once, so that it travels with its headers: treq's own for bytes comes a turn later."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content = content

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing more to come."""

    resumeProducing = stopProducing = pauseProducing


@implementer(IBodyProducer)
class BodyWriter:
    """Writes *chunks*, *length* bytes in all, as fast as the connection takes them.

    ValueError where they are more or fewer.
    """

    def __init__(self, length: int, chunks: AsyncIterator[bytes], progress: Callable[[], None]) -> None:
        self.length = length
        self._chunks = chunks
        self._progress = progress
        self._resumed: Deferred[None] | None = None
        self._writing: Deferred[None] | None = None
        self._stopped = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin; the Deferred fires when all is written, and never after `stopProducing`."""
        done: Deferred[None] = Deferred()
        self._writing = Deferred.fromCoroutine(self._write(consumer))
        self._writing.addBoth(lambda result: None if self._stopped else done.callback(result))
        return done

    def pauseProducing(self) -> None:
        """Write no more for now."""
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """Write on."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Write nothing more, ever."""
        self._stopped = True
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self, consumer: IConsumer) -> None:
        missing = self.length
        async for chunk in self._chunks:
            missing -= len(chunk)
            if missing < 0:
                break
            if self._resumed is not None:
                await self._resumed
            self._progress()
            consumer.write(chunk)
        if missing:
            raise ValueError(f"{'more' if missing < 0 else 'fewer'} than the {self.length} bytes that were to be sent")
