"""The first bytes of what jobs printed, as far as memory has room for them.

What many jobs of a run printed alike is held once. Where a run has more than its share of the room, the longest of its
heads are shortened: the whole outputs are on the machines.
"""

from __future__ import annotations

import hashlib

from ..wire.jobs import HEAD_LIMIT
from ..wire.output import shorten, split

RUN_HEADS = 16 << 20
"""Bytes of heads that one run may hold."""
ALL_HEADS = 128 << 20
"""Bytes of heads that all runs under way may hold."""


class Head:
    """The start of an output: *data* as it came, and the run lengths that say which bytes are whose."""

    __slots__ = ("data", "runs")

    def __init__(self, data: bytes = b"", runs: bytes = b"") -> None:
        self.data = data
        self.runs = runs

    def __len__(self) -> int:
        return len(self.data)

    @property
    def cost(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + len(self.runs)

    def shorten(self, length: int) -> int:
        """Keep the first *length* bytes; return how many bytes that saves."""
        before = self.cost
        if length < len(self.data):
            self.data, self.runs = shorten(self.data, self.runs, length)
        return before - self.cost


NOTHING = Head()


class HeadRoom:
    """The room for the heads of all runs under way: *taken* bytes of *total*, by *holders* runs."""

    def __init__(self, total: int = ALL_HEADS) -> None:
        self.total = total
        self.taken = 0
        self.holders = 0

    @property
    def share(self) -> int:
        """What one of those runs may hold."""
        return min(RUN_HEADS, self.total // max(1, self.holders))


class RunHeads:
    """The heads of one run, within *room*."""

    def __init__(self, room: HeadRoom | None = None) -> None:
        self._room = room or HeadRoom()
        self._heads: dict[bytes, Head] = {}
        self._longest = HEAD_LIMIT
        self._holds = False
        self.bytes = 0

    def keep(self, data: bytes, runs: bytes) -> Head:
        """Return what is held of that output: all of it, or as much as there is room for."""
        if not data:
            return NOTHING
        if not self._holds:
            self._holds = True
            self._room.holders += 1
        name = hashlib.sha256(hashlib.sha256(data).digest() + runs).digest()
        head = self._heads.get(name)
        if head is None:
            head = self._heads[name] = Head(data, runs)
            head.shorten(self._longest)
            self._take(head.cost)
            self._make_fit(head)
        return head

    def _make_fit(self, newest: Head) -> None:
        """Shorten the longest heads until all have room; each halving looks at each of them once."""
        share = self._room.share
        while self.bytes > share and self._longest:
            self._longest //= 2
            self._take(-sum(head.shorten(self._longest) for head in self._heads.values()))
        excess = self._room.taken - self._room.total
        if excess > 0:  # the others began when there were fewer of them
            self._take(-newest.shorten(max(0, len(newest) - excess)))

    def _take(self, amount: int) -> None:
        self.bytes += amount
        self._room.taken += amount

    def leave_room(self) -> None:
        """The run is over: no more heads come, and those that came count among what ended last."""
        self._heads.clear()
        self._room.taken -= self.bytes
        self._room.holders -= self._holds
        self._room, self._holds = HeadRoom(), False


def cut_head(head: Head, limit: int) -> tuple[bytes, bytes]:
    """Return (stdout, stderr) of the first *limit* bytes of interleaved output."""
    return split(*shorten(head.data, head.runs, limit))


def whole_characters(data: bytes) -> bytes:
    """Return *data* without a UTF-8 character that a cut left incomplete at its end."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return data[: error.start]
    return data
