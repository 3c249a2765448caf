"""The output limit of a whole answer, shared fairly: what is small is shown whole, the rest gets equal parts."""

from __future__ import annotations

from collections.abc import Iterable


def fair_share(sizes: Iterable[int], limit: int) -> int:
    """Return how much of each of *sizes* is shown, at most, so that all of it together is within *limit*."""
    left, ordered = limit, sorted(sizes)
    for place, size in enumerate(ordered):
        share = left // (len(ordered) - place)
        if size > share:
            return share
        left -= size
    return max([limit, *ordered[-1:]])
