"""A terminal that is drawn anew in place, and left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from .console import Console
from .text import shortened

# The other screen, no cursor, and no line that goes on in the next where the terminal just became narrower.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_LINE, _END_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """A context in which *console*'s terminal is ours; *on_resize* is called in the reactor's time."""

    def __init__(self, reactor: Any, console: Console, on_resize: Callable[[], None]) -> None:
        self._reactor = reactor
        self._console = console
        self._on_resize = on_resize
        self._stop_telling: Callable[[], None] = _nothing

    async def __aenter__(self) -> Screen:
        self._stop_telling = self._console.on_resize(self._reactor, self._on_resize)
        await self._console.out(_ENTER)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_telling()
        await self._console.out(_LEAVE)

    async def draw(self, lines: Sequence[str]) -> None:
        """Show *lines*, as far as there is room: in one piece and over what was there, so that nothing flickers."""
        width, height = self._console.size
        shown = list(lines)
        if len(shown) > height:
            left_out = len(shown) - (height - 1)
            shown[height - 1 :] = [f"... and {left_out} more"]
        text = f"{_END_LINE}\n".join(shortened(line, width) for line in shown)
        await self._console.out(f"{_HOME}{text}{_END_LINE}{_END_SCREEN}")


def _nothing() -> None:
    """Nobody is told yet."""
