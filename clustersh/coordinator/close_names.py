"""What somebody may have meant who mistyped a name, found quickly among thousands."""

from __future__ import annotations

import difflib
import re
from bisect import bisect
from collections.abc import Collection

_NEIGHBOURS = 50


def close_names(name: str, known: Collection[str]) -> list[str]:
    """Return up to three of *known* that resemble *name*, the closest first.

    Comparing a name with thousands of others takes a tenth of a second. A slip has what is right before or after it:
    so only those are compared that stand near it when they are sorted by how they begin, or by how they end.
    """
    if len(known) > 4 * _NEIGHBOURS:
        backwards = [each[::-1] for each in known]
        known = {*_near(name, known), *(each[::-1] for each in _near(name[::-1], backwards))}
    return difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)


def did_you_mean(name: str, known: Collection[str], form: str = "{}") -> str:
    """Return the question, each name in it in that *form*; "" where nothing resembles *name*."""
    close = [form.format(each) for each in close_names(name, known)]
    return f"did you mean {' or '.join(close)}?" if close else ""


def patterns_meant(pattern: str, known: Collection[str]) -> str:
    """Return the question for a *pattern* that fits none of *known*: by how those begin, where it is `text*`."""
    start = pattern.rstrip("*")
    if start and start != pattern and not set("*?") & set(start):
        return did_you_mean(start, {name[: len(start)] for name in known}, "{}*")
    return did_you_mean(re.sub(r"[*?]", "", pattern), known)


def _near(name: str, known: Collection[str]) -> list[str]:
    inorder = sorted(known)
    place = bisect(inorder, name)
    return inorder[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
