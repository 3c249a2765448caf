"""ClusterShell's NodeSet, deaf to the files that configure clush on this host: what a target means is the cluster's."""

from __future__ import annotations

from configparser import ConfigParser

_read = ConfigParser.read
ConfigParser.read = lambda *_, **__: []  # type: ignore[method-assign]  # defaults.conf is read as it is imported
try:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
    from ClusterShell.NodeUtils import GroupResolver, GroupSource, GroupSourceQueryFailed
finally:
    ConfigParser.read = _read  # type: ignore[method-assign]

__all__ = ["GroupResolver", "GroupSource", "GroupSourceQueryFailed", "NodeSet", "NodeSetException", "expand"]


def expand(word: str) -> list[str]:
    """Return what *word* stands for, its brackets resolved: ``web[1-3]``. Raises NodeSetException.

    See before that it isn't too much: this makes all of it.
    """
    return list(NodeSet(word, resolver=RESOLVER_NOGROUP))
