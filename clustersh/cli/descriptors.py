"""This process's own output descriptors, shared with whoever called it: their flags stay as they are."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import UNCERTAIN, CliError, OutputClosed

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

InThread: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a blocking function in a thread; awaits its result."""

DIRECT_LIMIT = 4096
"""A pipe that is writable takes this much at once (PIPE_BUF), so that such a write can't block the reactor."""
_CLOSED = {errno.EPIPE, errno.ECONNRESET}
_RESIZED = getattr(signal, "SIGWINCH", None)


class Descriptors:
    """The outlet of the descriptors *out* and *err*.

    Small writes go straight when that can't block, others in a thread. Raises OutputClosed once the reader is gone.
    """

    def __init__(self, out: int, err: int, in_thread: InThread) -> None:
        self._of = {1: out, 2: err}
        self._in_thread = in_thread
        self._writing = False
        self._queue: deque[Deferred[None]] = deque()

    def is_terminal(self, stream: int) -> bool:
        """Whether it is one."""
        return os.isatty(self._of[stream])

    def size(self, stream: int) -> tuple[int, int]:
        """Return the terminal's columns and lines; 0 for what is not known."""
        try:
            return os.get_terminal_size(self._of[stream])
        except OSError:
            return (0, 0)

    def same_destination(self) -> bool:
        """Whether stdout and stderr go to one place."""
        try:
            return os.path.sameopenfile(self._of[1], self._of[2])
        except OSError:
            return False

    def direct(self) -> Descriptors:
        """Return the same, which writes at once and may block."""
        return Descriptors(self._of[1], self._of[2], _directly)

    def on_resize(self, reactor: Any, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told* in the reactor's time when the terminal's size changes; return what ends that."""
        if _RESIZED is None:
            return lambda: None
        resized, before = _RESIZED, signal.signal(_RESIZED, lambda *_: reactor.callFromThread(told))
        return lambda: _ignore(signal.signal(resized, before))

    def write_now(self, stream: int, data: bytes | memoryview) -> None:
        """Write before there is a reactor; may block."""
        _write_all(self._of[stream], data)

    async def write(self, stream: int, data: bytes | memoryview) -> None:
        """Write *data*, after all that was written before."""
        descriptor = self._of[stream]
        if self._writing:
            await self._turn()
        elif len(data) <= DIRECT_LIMIT and takes_it_now(descriptor):
            _write_all(descriptor, data)
            return
        self._writing = True
        try:
            await self._in_thread(lambda: _write_all(descriptor, data))
        finally:
            self._writing = False
            if self._queue:
                # The next one is given the turn at once: nobody may slip in between.
                self._writing = True
                self._queue.popleft().callback(None)

    def _turn(self) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        turn: Deferred[None] = Deferred(self._queue.remove)  # one that is given up must not be given the turn
        self._queue.append(turn)
        return turn


async def _directly(function: Callable[[], Any]) -> Any:
    return function()


def _ignore(_handler: object) -> None:
    """Forget the handler that was replaced."""


def takes_it_now(descriptor: int) -> bool:
    """Whether a write of up to DIRECT_LIMIT bytes would not block."""
    try:
        if _is_file(descriptor):
            return True
        if not hasattr(select, "poll"):
            return False
        return _poll(descriptor, 0)
    except OSError:
        return True  # the write itself will tell what is wrong


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _poll(descriptor: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_ms))


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # The caller made it non-blocking, and shares it with us: wait instead of changing that.
            _poll(descriptor, None)
        except OSError as error:
            if error.errno in _CLOSED or (error.errno == errno.EIO and not _is_file(descriptor)):
                raise OutputClosed from error
            raise CliError(f"can't write the output: {error.strerror}", status=UNCERTAIN, started=None) from error
