"""Group commit: one thread writes, and everything that waits shares one fsync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

Item = TypeVar("Item")
Result = TypeVar("Result")

LATER_S = 0.1
"""Seconds that an item may wait that nobody waits for."""


class StoppedError(Exception):
    """Nothing is written any more: the service is shutting down."""


class GroupCommit(Generic[Item, Result]):
    """Hands items, in order, to *write_batch* in one thread of its own.

    *write_batch* gets everything that came in since its last call, makes it durable, and returns one result an item.
    What it raises fails all of that batch; the next one is tried afresh.
    """

    # A thread and a queue of its own: every job passes here several times, and Twisted's thread pool costs four times
    # as much a turn.

    def __init__(self, reactor: Any, name: str, write_batch: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._reactor = reactor
        self._name = name
        self._write_batch = write_batch
        self._waiting: list[tuple[Item, Deferred[Result]]] = []
        self._later: IDelayedCall | None = None
        self._writing = False
        self._stopped = False
        self._idle: list[Deferred[None]] = []
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; items that came before are written now."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        self._next_batch()

    def submit(self, item: Item) -> Deferred[Result]:
        """Have *item* written; fires with its result once that is durable, or fails with what the writing raised.

        After `stop` it fails with StoppedError.
        """
        if self._stopped:
            return fail(StoppedError("nothing is written any more"))
        done = self._add(item)
        if self._thread is not None and not self._writing:
            self._next_batch()
        return done

    def submit_later(self, item: Item) -> Deferred[Result]:
        """As `submit`, for what nobody is kept waiting for: it goes with the next item, or in a moment without one."""
        if self._stopped:
            return fail(StoppedError("nothing is written any more"))
        done = self._add(item)
        if self._later is None and not self._writing:
            self._later = self._reactor.callLater(LATER_S, self._write_later)
        return done

    async def in_thread(self, function: Callable[[], Result]) -> Any:
        """Run *function* in the same thread, after the batch that is being written; what waits goes on waiting.

        After `stop` raises StoppedError.
        """
        if self._stopped:
            raise StoppedError("nothing is written any more")
        done: Deferred[Result] = Deferred()
        self._hand_over(function, lambda result: _tell(result, done))
        return await done

    async def stop(self) -> None:
        """Write what waits and tell those who wait for it, then end the thread."""
        if self._waiting and self._thread is None and not self._stopped:
            self.start()
        if not self._writing:
            self._next_batch()
        while self._writing or self._waiting:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._stopped = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._work.put(None)
            thread.join()

    # -- in the reactor's thread

    def _add(self, item: Item) -> Deferred[Result]:
        done: Deferred[Result] = Deferred()
        self._waiting.append((item, done))
        return done

    def _write_later(self) -> None:
        self._later = None
        if self._thread is not None and not self._writing:
            self._next_batch()

    def _next_batch(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        self._writing = True
        items, waiters = [item for item, _ in batch], [done for _, done in batch]
        self._hand_over(lambda: self._write(items), lambda results: self._written(results, waiters))

    def _hand_over(self, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Call *function* in the thread, and *then* here with what it returned, or the Failure of what it raised."""

        def work() -> None:
            try:
                result = function()
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(then, result)

        self._work.put(work)

    def _written(self, results: Sequence[Result] | Failure, waiters: list[Deferred[Result]]) -> None:
        self._writing = False
        self._next_batch()
        if isinstance(results, Failure):
            for waiter in waiters:
                waiter.errback(results)
        else:
            for waiter, result in zip(waiters, results, strict=True):
                waiter.callback(result)
        if not self._writing and not self._waiting:
            idle, self._idle = self._idle, []
            for told in idle:
                told.callback(None)

    # -- in the thread

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _write(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._write_batch(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results


def _tell(result: Any, waiter: Deferred[Any]) -> None:
    waiter.errback(result) if isinstance(result, Failure) else waiter.callback(result)
