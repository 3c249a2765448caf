"""ClusterShell's NodeSet, deaf to the files that configure clush on this host: what a target means is the cluster's."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from configparser import ConfigParser

_read = ConfigParser.read
ConfigParser.read = lambda *_, **__: []  # type: ignore[method-assign]  # defaults.conf is read as it is imported
try:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
    from ClusterShell.NodeUtils import GroupResolver, GroupSource, GroupSourceQueryFailed
    from ClusterShell.RangeSet import RangeSet
finally:
    ConfigParser.read = _read  # type: ignore[method-assign]

__all__ = ["GroupResolver", "GroupSource", "GroupSourceQueryFailed", "NodeSet", "NodeSetException", "expand", "fold"]

_LAST_NUMBER = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)


def expand(word: str) -> list[str]:
    """Return what *word* stands for, its brackets resolved: ``web[1-3]``. Raises NodeSetException.

    See before that it isn't too much: this makes all of it.
    """
    return list(NodeSet(word, resolver=RESOLVER_NOGROUP))


def fold(names: Iterable[str]) -> str:
    """Return *names* as one short expression: ``db1,web[01-03]``.

    Only the last number of a name is folded. NodeSet would fold all of them, and take seconds for a thousand names
    with three numbers each.
    """
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    folded: list[str] = []
    for name in names:
        found = _LAST_NUMBER.fullmatch(name)
        if found is None:
            folded.append(name)
        else:
            numbers[found[1], found[3]].append(found[2])
    for (before, after), found_numbers in numbers.items():
        ranges = RangeSet(",".join(found_numbers))
        folded.append(f"{before}[{ranges}]{after}" if len(ranges) > 1 else f"{before}{ranges}{after}")
    return ",".join(sorted(folded))
