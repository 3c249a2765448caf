"""Machines' names, many at once: in order, and folded to a node set."""

from __future__ import annotations

import re
from collections.abc import Collection

_DIGITS = re.compile(r"([0-9]+)")
_LAST_NUMBER = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """Return a key that sorts ``web2`` before ``web10``."""
    parts = _DIGITS.split(name)
    return tuple((text, int(number), number) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True))


def node_set(names: Collection[str]) -> str:
    """Return *names* as one expression, in order: ``db1,web[01-09]``. Only the last number of a name is folded."""
    if len(names) <= 1:
        return "".join(names)
    # Not ClusterShell's NodeSet: importing it takes a fifth of a short command's time, and it takes seconds to fold a
    # thousand names with several numbers each.
    from ClusterShell.RangeSet import RangeSet

    numbers: dict[tuple[str, str], list[str]] = {}
    folded: dict[str, str] = {}
    for name in names:
        found = _LAST_NUMBER.fullmatch(name)
        if found is None:
            folded[name] = name
        else:
            numbers.setdefault((found[1], found[3]), []).append(found[2])
    for (before, after), alike in numbers.items():
        ranges = RangeSet(",".join(alike))
        folded[f"{before}{alike[0]}{after}"] = before + (f"[{ranges}]" if len(alike) > 1 else alike[0]) + after
    return ",".join(folded[name] for name in sorted(folded, key=natural))
