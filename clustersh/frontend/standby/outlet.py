"""The streams of a launcher's caller: what a command that runs in the standby writes to and reads from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ...cli.errors import UNCERTAIN, CliError, OutputClosed, UsageError
from . import frames
from .frames import PIECE, WINDOW

Send = Callable[[bytes], None]


class RelayedOutlet:
    """Writes by way of *send*, no further ahead of the launcher than WINDOW bytes."""

    def __init__(self, send: Send, terminals: bytes, same: bool, sizes: bytes) -> None:
        self._send = send
        self._terminals = terminals
        self._same = same
        self._sizes = frames.numbers(sizes)
        self._ahead = 0
        self._failed: dict[int, Exception] = {}
        self._waiting: deque[Deferred[None]] = deque()
        self._resized: list[Callable[[], None]] = []

    def is_terminal(self, stream: int) -> bool:
        """Whether it is one."""
        return bool(self._terminals[stream])

    def size(self, stream: int) -> tuple[int, int]:
        """Return the terminal's columns and lines; 0 for what is not known."""
        columns, lines = self._sizes[2 * (stream - 1) :][:2]
        return columns, lines

    def same_destination(self) -> bool:
        """Whether stdout and stderr go to one place."""
        return self._same

    def direct(self) -> RelayedOutlet:
        """Return the same: nothing here blocks."""
        return self

    def on_resize(self, reactor: Any, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told* when the terminal's size changes; return what ends that."""
        self._resized.append(told)
        return lambda: self._resized.remove(told)

    async def write(self, stream: int, data: bytes | memoryview) -> None:
        """Write *data*, after all that was written before."""
        for piece in _pieces(data):
            if self._ahead >= WINDOW or self._waiting:
                await self._turn()
            if stream in self._failed:
                raise self._failed[stream]
            self._write(stream, piece)

    def write_now(self, stream: int, data: bytes | memoryview) -> None:
        """Write a little without waiting."""
        for piece in _pieces(data):
            self._write(stream, piece)

    async def settle(self) -> None:
        """Wait until all was written; raise what went wrong with it."""
        while self._ahead > 0:
            await self._turn()
        for failed in self._failed.values():
            raise failed

    def written(self, size: int) -> None:
        """The launcher wrote *size* bytes more."""
        self._ahead -= size
        self._go_on()

    def failed(self, stream: int, closed: bool, why: str, size: int) -> None:
        """The launcher can't write to *stream* any more, *size* bytes among what was sent to it."""
        words = f"can't write the output: {why}"
        self._failed[stream] = OutputClosed() if closed else CliError(words, status=UNCERTAIN, started=None)
        self.written(size)

    def gone(self) -> None:
        """The launcher is gone, and both streams with it."""
        for stream in (1, 2):
            self.failed(stream, True, "", self._ahead)

    def resize(self, sizes: bytes) -> None:
        """The terminal's size is another one now."""
        self._sizes = frames.numbers(sizes)
        for told in tuple(self._resized):
            told()

    def _write(self, stream: int, piece: bytes | memoryview) -> None:
        self._ahead += len(piece)
        self._send(frames.frame(frames.OUT if stream == 1 else frames.ERR, piece))

    async def _turn(self) -> None:
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        await turn

    def _go_on(self) -> None:
        """Give those who wait their turns, as long as there is room; a write in between takes some of it."""
        for _ in range(len(self._waiting)):
            if self._ahead >= WINDOW or not self._waiting:
                return
            self._waiting.popleft().callback(None)


class RelayedStdin:
    """The caller's standard input, asked of the launcher piece by piece."""

    def __init__(self, send: Send, is_terminal: bool) -> None:
        self._send = send
        self._asked: Deferred[bytes] | None = None
        self.is_terminal = is_terminal

    async def read(self, limit: int) -> bytes:
        """Return 1 to *limit* bytes; empty at the end. Raises UsageError where it can't be read."""
        asked: Deferred[bytes] = Deferred()
        self._asked = asked
        self._send(frames.number(frames.READ, min(limit, PIECE)))
        return await asked

    def came(self, data: bytes) -> None:
        """The launcher read *data*."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(data)

    def failed(self, why: str) -> None:
        """The launcher can't read it."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.errback(UsageError(f"can't read standard input: {why}"))


def _pieces(data: bytes | memoryview) -> list[bytes | memoryview]:
    if len(data) <= PIECE:
        return [data]
    view = memoryview(data)
    return [view[at : at + PIECE] for at in range(0, len(view), PIECE)]
