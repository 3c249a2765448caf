"""How far readers ask ahead: enough to fill the way to a machine, however long it is, and not much more.

A way is full when asking for more only makes the answers wait for each other: they take longer than the quickest did.
"""

from __future__ import annotations

FEWEST = 4
MOST = 64
"""Pieces that one reader may have asked for at once: with MAX_CHUNK each, 1 MiB and 16 MiB."""
SHARED = 256
"""Pieces beyond those FEWEST that all readers together may have asked for: 64 MiB."""
_FULL, _CROWDED = 2, 4
"""How many times as long as the quickest an answer takes where the window grows no more, and where it shrinks."""


class Allowance:
    """How many pieces the windows of all readers may still grow by."""

    def __init__(self) -> None:
        self.left = SHARED


class Window:
    """How many pieces one reader asks for at once: *size*, which it may go on having until `close`."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._quickest = float("inf")
        self.size = FEWEST

    def adapt(self, took: float, lay: float | None) -> None:
        """A piece came *took* seconds after it was asked for, and *lay* seconds until the reader wanted it.

        None: the reader waited for it.
        """
        self._quickest = min(self._quickest, took)
        if took > _CROWDED * self._quickest or (lay is not None and lay > self._quickest):
            self._resize(max(FEWEST, self.size - 1))
        elif lay is None and took <= _FULL * self._quickest and self._allowance.left:
            self._resize(min(MOST, self.size + 1))

    def close(self) -> None:
        """The reader wants no more: others may have what it had."""
        self._resize(FEWEST)

    def _resize(self, size: int) -> None:
        self._allowance.left -= size - self.size
        self.size = size
