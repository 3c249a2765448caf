"""The one object that a command writes through: stdout and stderr of whoever called it."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import UNCERTAIN, CliError, OutputClosed
from .text import printable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from .live import LiveConsole

InThread: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a blocking function in a thread; awaits its result."""

DIRECT_LIMIT = 4096
"""A pipe that is writable takes this much at once (PIPE_BUF), so that such a write can't block the reactor."""
DEFAULT_WIDTH = 80
DEFAULT_HEIGHT = 24
_CLOSED = {errno.EPIPE, errno.ECONNRESET}


class Console:
    """Writes to the descriptors *out* and *err*, in order, and knows what they are.

    The descriptors are shared with the caller: their flags stay as they are. Small writes go straight when that
    can't block, others in a thread. Raises OutputClosed once the reader is gone.
    """

    def __init__(self, out: int, err: int, environ: Mapping[str, str], in_thread: InThread) -> None:
        self._out = out
        self._err = err
        self._in_thread = in_thread
        self._writing = False
        self._queue: deque[Deferred[None]] = deque()
        self._environ = environ
        self.is_terminal = os.isatty(out)
        self.can_draw = self.is_terminal and environ.get("TERM", "dumb") != "dumb"
        self.errors_to_terminal = os.isatty(err)
        self._colour = self.errors_to_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"

    @property
    def width(self) -> int | None:
        """The terminal's columns; None where stdout is no terminal, so that nothing is shortened."""
        return self.size.columns if self.is_terminal else None

    @property
    def size(self) -> os.terminal_size:
        """The terminal's columns and lines, as far as they are known."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns = lines = 0
        return os.terminal_size((columns or DEFAULT_WIDTH, lines or DEFAULT_HEIGHT))

    @property
    def same_destination(self) -> bool:
        """Whether stdout and stderr go to one place, so that their order shows."""
        try:
            return os.path.sameopenfile(self._out, self._err)
        except OSError:
            return False

    def direct(self) -> Console:
        """Return the same console for work without a reactor: it writes at once, and may block."""
        return Console(self._out, self._err, self._environ, _directly)

    def live(self, line: Callable[[], str], clock: Any) -> LiveConsole:
        """Return the same console with *line*, which changes, under all that is printed."""
        from .live import LiveConsole

        return LiveConsole(self._out, self._err, self._environ, self._in_thread, line, clock)

    async def out(self, data: bytes | memoryview | str) -> None:
        """Write *data* to stdout."""
        await self._write(self._out, _encoded(data))

    async def err(self, data: bytes | memoryview | str) -> None:
        """Write *data* to stderr."""
        await self._write(self._err, _encoded(data))

    async def error(self, message: str, hints: tuple[str, ...] = ()) -> None:
        """Say what is wrong on stderr: one ``ERROR:`` line, then the hints."""
        await self.err(self._error_text(message, hints))

    async def hint(self, text: str) -> None:
        """Say on stderr what to do next."""
        await self.err(f"hint: {printable(text)}\n")

    def out_now(self, data: bytes | str) -> None:
        """Write to stdout before there is a reactor; may block."""
        _write_all(self._out, _encoded(data))

    def err_now(self, data: bytes | str) -> None:
        """Write to stderr before there is a reactor; may block."""
        _write_all(self._err, _encoded(data))

    def error_now(self, message: str, hints: tuple[str, ...] = ()) -> None:
        """As `error`, before there is a reactor; may block."""
        _write_all(self._err, _encoded(self._error_text(message, hints)))

    def hint_now(self, text: str) -> None:
        """As `hint`, before there is a reactor; may block."""
        _write_all(self._err, _encoded(f"hint: {printable(text)}\n"))

    def _error_text(self, message: str, hints: tuple[str, ...]) -> str:
        label = "\x1b[31mERROR:\x1b[0m" if self._colour else "ERROR:"
        return "".join(
            [f"{label} {printable(message)}\n", *(f"hint: {printable(hint)}\n" for hint in hints)],
        )

    async def _write(self, descriptor: int, data: bytes | memoryview) -> None:
        if not data:
            return
        if self._writing:
            await self._turn()
        elif len(data) <= DIRECT_LIMIT and _takes_it_now(descriptor):
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

        turn: Deferred[None] = Deferred()
        self._queue.append(turn)
        return turn


async def _directly(function: Callable[[], Any]) -> Any:
    return function()


def _encoded(data: bytes | memoryview | str) -> bytes | memoryview:
    return data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data


def _takes_it_now(descriptor: int) -> bool:
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
