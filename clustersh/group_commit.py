"""Group commit: one thread writes, and everything that waits shares one fsync."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

Item = TypeVar("Item")
Result = TypeVar("Result")


class StoppedError(Exception):
    """Nothing is written any more: the service is shutting down."""


class GroupCommit(Generic[Item, Result]):
    """Hands items, in order, to *write_batch* in one thread of its own.

    *write_batch* gets everything that came in since its last call, makes it durable, and returns one result an item.
    What it raises fails all of that batch; the next one is tried afresh.
    """

    def __init__(self, reactor: Any, name: str, write_batch: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._reactor = reactor
        self._write_batch = write_batch
        self._waiting: list[tuple[Item, Deferred[Result]]] = []
        self._writing = False
        self._stopped = False
        self._idle: list[Deferred[None]] = []
        self._pool = ThreadPool(0, 1, name=name)

    def start(self) -> None:
        """Start the thread; items that came before are written now."""
        self._pool.start()
        self._next_batch()

    def submit(self, item: Item) -> Deferred[Result]:
        """Have *item* written; fires with its result once that is durable, or fails with what the writing raised.

        After `stop` it fails with StoppedError.
        """
        if self._stopped:
            return fail(StoppedError("nothing is written any more"))
        done: Deferred[Result] = Deferred()
        self._waiting.append((item, done))
        if self._pool.started and not self._writing:
            self._next_batch()
        return done

    async def in_thread(self, function: Callable[[], Result]) -> Any:
        """Run *function* in the same thread, after the batch that is being written."""
        return await deferToThreadPool(self._reactor, self._pool, function)

    async def stop(self) -> None:
        """Write what waits and tell those who wait for it, then end the thread."""
        if self._waiting and not self._pool.started and not self._stopped:
            self.start()
        while self._writing or self._waiting:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._stopped = True
        if self._pool.started:
            self._pool.stop()

    def _next_batch(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        self._writing = True
        written = deferToThreadPool(self._reactor, self._pool, self._write, [item for item, _ in batch])
        written.addBoth(self._written, [done for _, done in batch])

    def _write(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._write_batch(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results

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
