"""Machines' names as answers about many of them show them."""

from __future__ import annotations

from collections.abc import Collection

from ...folding import natural, node_set

__all__ = ["counted", "natural", "node_set"]


def counted(names: Collection[str]) -> str:
    """Return *names* as a header has them: ``web[01-09] (9)``, and one just as it is."""
    return node_set(names) + (f" ({len(names)})" if len(names) > 1 else "")
