"""What waits, from several sources: they take turns, one thing each, whatever any of them has waiting."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Hands out things by turns of their sources. Whoever comes anew waits for at most one thing of each other source.

    The source that had its turn last is held back: it goes behind those that came meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[T, None]] = {}
        self._source_of: dict[T, str] = {}
        self._sources: deque[str] = deque()
        self._last: str | None = None

    def __len__(self) -> int:
        return len(self._source_of)

    def put(self, source: str, thing: T) -> None:
        """Have *thing* wait, behind the others of *source*."""
        if source not in self._waiting:
            self._waiting[source] = {}
            if source != self._last:
                self._sources.append(source)
        self._waiting[source][thing] = None
        self._source_of[thing] = source

    def remove(self, thing: T) -> None:
        """Have *thing* wait no more, where it does."""
        source = self._source_of.pop(thing, None)
        if source is not None:
            del self._waiting[source][thing]
        if not self._source_of:
            self._waiting.clear()
            self._sources.clear()

    def take(self) -> T | None:
        """Return what comes next; None where nothing waits."""
        if self._last is not None and self._last in self._waiting:
            self._sources.append(self._last)
        while self._sources:
            source = self._sources.popleft()
            there = self._waiting.pop(source)
            if not there:
                continue  # all of it was removed
            thing = next(iter(there))
            del there[thing], self._source_of[thing]
            if there:
                self._waiting[source] = there
            self._last = source
            return thing
        return None


class FairLock:
    """Lets in one at a time; those who wait for it take turns as in a `FairQueue`."""

    def __init__(self) -> None:
        self._queue: FairQueue[Deferred[None]] = FairQueue()
        self._taken = False

    async def take(self, source: str) -> None:
        """Return once it is *source*'s turn: `let_go` ends that."""
        turn: Deferred[None] = Deferred(self._queue.remove)
        self._queue.put(source, turn)
        if not self._taken:
            self.let_go()
        await turn

    def let_go(self) -> None:
        """Let in the next one."""
        turn = self._queue.take()
        self._taken = turn is not None
        if turn is not None:
            turn.callback(None)
