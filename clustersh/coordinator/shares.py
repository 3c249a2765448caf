"""What each client has of something that is bounded: how many things, and their bytes."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Share(NamedTuple):
    """So many *things*, of *size* bytes together."""

    things: int
    size: int


class Shares:
    """Counts; those who take something say what it is too much of."""

    def __init__(self) -> None:
        self._things: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self.all = Share(0, 0)
        """What all of them have together."""

    def of(self, client_id: str) -> Share:
        """Return what a client has."""
        return Share(self._things[client_id], self._bytes[client_id])

    def take(self, client_id: str, size: int) -> None:
        """A client has one thing more."""
        self._things[client_id] += 1
        self._bytes[client_id] += size
        self.all = Share(self.all.things + 1, self.all.size + size)

    def give_back(self, client_id: str, size: int) -> None:
        """Return what was taken."""
        for counter, amount in ((self._things, 1), (self._bytes, size)):
            counter[client_id] -= amount
            if counter[client_id] <= 0:
                del counter[client_id]
        self.all = Share(self.all.things - 1, self.all.size - size)
