"""How the answer of many machines is laid out (``-o``)."""

from __future__ import annotations

import enum


class Layout(enum.StrEnum):
    """What ``run -o`` takes."""

    FOLDED = "folded"
    EACH = "each"
    DIFF = "diff"
    JSON = "json"
    JSONL = "jsonl"

    @property
    def folds(self) -> bool:
        """Whether equal outputs are wanted only once."""
        return self in (Layout.FOLDED, Layout.DIFF)

    @property
    def documents(self) -> bool:
        """Whether stdout holds JSON."""
        return self in (Layout.JSON, Layout.JSONL)
