"""Which jobs printed the very same, and how much of each output an answer has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..wire.jobs import HEAD_LIMIT
from .printed import Printed

_Name: TypeAlias = tuple[str, str, int, int, int]


def twins(jobs: Sequence[Printed]) -> list[int]:
    """Return for each job the place of the first that printed the same: its own where there is none before it."""
    first: dict[_Name, int] = {}
    found = []
    for place, each in enumerate(jobs):
        name = _name(each)
        found.append(place if name is None else first.setdefault(name, place))
    return found


def _name(each: Printed) -> _Name | None:
    """Return what an output goes by; None where it goes by nothing.

    Sums of more than what came with the result are the machine's own word: there the heads must be the same, too.
    """
    job = each.job
    if not job.output_bytes or not any(each.sums):
        return None
    if job.output_bytes <= HEAD_LIMIT:
        return (*each.sums, job.stdout_bytes, job.stderr_bytes, 0)
    return None if each.head is None else (*each.sums, job.stdout_bytes, job.stderr_bytes, id(each.head))


def fair_shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Return how many of *limit* bytes each of *sizes* gets: the small ones all of theirs, the others equally much."""
    shares = [0] * len(sizes)
    left = limit
    for done, place in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[place] = min(sizes[place], left // (len(sizes) - done))
        left -= shares[place]
    return shares
