"""The one object that a command writes through: stdout and stderr of whoever called it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .descriptors import Descriptors, InThread
from .text import printable

if TYPE_CHECKING:
    from .live import LiveConsole

DEFAULT_WIDTH = 80
DEFAULT_HEIGHT = 24
OUT, ERR = 1, 2
"""The two streams, as their usual descriptors."""


class Outlet(Protocol):
    """Where a console's bytes go: this process's own descriptors, or those of a caller elsewhere."""

    def is_terminal(self, stream: int) -> bool:
        """Whether somebody reads *stream* on a terminal."""

    def size(self, stream: int) -> tuple[int, int]:
        """Return that terminal's columns and lines; 0 for what is not known."""

    def same_destination(self) -> bool:
        """Whether both streams go to one place, so that their order shows."""

    def direct(self) -> Outlet:
        """Return the same for work without a reactor."""

    def on_resize(self, reactor: Any, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told*, in the reactor's time, whenever the terminal's size changes; return what ends that."""

    async def write(self, stream: int, data: bytes | memoryview) -> None:
        """Write *data*, after all that was written before. Raises OutputClosed once the reader is gone."""

    def write_now(self, stream: int, data: bytes | memoryview) -> None:
        """As `write`, before there is a reactor."""


class Console:
    """Writes to an *outlet*, in order, and knows what its streams are."""

    def __init__(self, outlet: Outlet, environ: Mapping[str, str]) -> None:
        self._outlet = outlet
        self._environ = environ
        self.is_terminal = outlet.is_terminal(OUT)
        self.can_draw = self.is_terminal and environ.get("TERM", "dumb") != "dumb"
        self.errors_to_terminal = outlet.is_terminal(ERR)
        self._colour = self.errors_to_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"

    @classmethod
    def on(cls, out: int, err: int, environ: Mapping[str, str], in_thread: InThread) -> Console:
        """Return the console of this process's descriptors *out* and *err*."""
        return cls(Descriptors(out, err, in_thread), environ)

    @property
    def width(self) -> int | None:
        """The terminal's columns; None where stdout is no terminal, so that nothing is shortened."""
        return self.size.columns if self.is_terminal else None

    @property
    def size(self) -> os.terminal_size:
        """The terminal's columns and lines, as far as they are known."""
        columns, lines = self._outlet.size(OUT)
        return os.terminal_size((columns or DEFAULT_WIDTH, lines or DEFAULT_HEIGHT))

    @property
    def same_destination(self) -> bool:
        """Whether stdout and stderr go to one place, so that their order shows."""
        return self._outlet.same_destination()

    def on_resize(self, reactor: Any, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told*, in the reactor's time, whenever the terminal's size changes; return what ends that."""
        return self._outlet.on_resize(reactor, told)

    def direct(self) -> Console:
        """Return the same console for work without a reactor: it writes at once, and may block."""
        return Console(self._outlet.direct(), self._environ)

    def live(self, line: Callable[[], str], clock: Any) -> LiveConsole:
        """Return the same console with *line*, which changes, under all that is printed."""
        from .live import LiveConsole

        return LiveConsole(self._outlet, self._environ, line, clock)

    async def out(self, data: bytes | memoryview | str) -> None:
        """Write *data* to stdout."""
        await self._write(OUT, _encoded(data))

    async def err(self, data: bytes | memoryview | str) -> None:
        """Write *data* to stderr."""
        await self._write(ERR, _encoded(data))

    async def error(self, message: str, hints: tuple[str, ...] = ()) -> None:
        """Say what is wrong on stderr: one ``ERROR:`` line, then the hints."""
        await self.err(self._error_text(message, hints))

    async def hint(self, text: str) -> None:
        """Say on stderr what to do next."""
        await self.err(f"hint: {printable(text)}\n")

    def out_now(self, data: bytes | str) -> None:
        """Write to stdout before there is a reactor; may block."""
        self._outlet.write_now(OUT, _encoded(data))

    def err_now(self, data: bytes | str) -> None:
        """Write to stderr before there is a reactor; may block."""
        self._outlet.write_now(ERR, _encoded(data))

    def error_now(self, message: str, hints: tuple[str, ...] = ()) -> None:
        """As `error`, before there is a reactor; may block."""
        self._outlet.write_now(ERR, _encoded(self._error_text(message, hints)))

    def hint_now(self, text: str) -> None:
        """As `hint`, before there is a reactor; may block."""
        self._outlet.write_now(ERR, _encoded(f"hint: {printable(text)}\n"))

    def _error_text(self, message: str, hints: tuple[str, ...]) -> str:
        label = "\x1b[31mERROR:\x1b[0m" if self._colour else "ERROR:"
        return "".join(
            [f"{label} {printable(message)}\n", *(f"hint: {printable(hint)}\n" for hint in hints)],
        )

    async def _write(self, stream: int, data: bytes | memoryview) -> None:
        if data:
            await self._outlet.write(stream, data)


def _encoded(data: bytes | memoryview | str) -> bytes | memoryview:
    return data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
