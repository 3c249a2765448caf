"""A last line on the terminal that changes while work goes on, and out of the way whenever something is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import LoopingCall

from .console import DEFAULT_WIDTH, ERR, Console, Outlet
from .text import printable, shortened

EVERY_S = 0.2
_ERASE = b"\r\x1b[K"


class LiveConsole(Console):
    """A console with such a line on stderr: what *line* returns. It needs a terminal, on stdout too."""

    def __init__(self, outlet: Outlet, environ: Mapping[str, str], line: Callable[[], str], clock: Any) -> None:
        super().__init__(outlet, environ)
        self._line = line
        self._drawn = ""
        self._printing = 0
        self._ticks = LoopingCall(self._draw)
        self._ticks.clock = clock
        if self.is_terminal and self.errors_to_terminal and environ.get("TERM", "dumb") != "dumb":
            self._ticks.start(EVERY_S, now=False).addErrback(lambda _: None)

    async def stop(self) -> None:
        """Take the line away, for good."""
        if self._ticks.running:
            self._ticks.stop()
        await super()._write(ERR, self._erased())

    async def _draw(self) -> None:
        """Show the line as it is now, unless something is being printed."""
        text = shortened(printable(self._line()), self._columns() - 1)
        if not self._printing and text != self._drawn:
            self._drawn = text
            await super()._write(ERR, _ERASE + text.encode())

    async def _write(self, stream: int, data: bytes | memoryview) -> None:
        self._printing += 1
        try:
            if self._drawn:
                await super()._write(ERR, self._erased())
            await super()._write(stream, data)
        finally:
            self._printing -= 1

    def _erased(self) -> bytes:
        """Return what takes the line away."""
        drawn, self._drawn = self._drawn, ""
        return _ERASE if drawn else b""

    def _columns(self) -> int:
        return self._outlet.size(ERR)[0] or DEFAULT_WIDTH
