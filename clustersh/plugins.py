"""What others install beside clustersh (docs/plugins.md): telling plugins apart by the names that they have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.logger import Logger

from .wire.ids import PLUGIN_NAME

log = Logger()


def by_name(what: str, plugins: Iterable[Any], taken: Iterable[str]) -> dict[str, Any]:
    """Return *plugins* by name. One without a proper name of its own is logged as a *what*, and left out."""
    names, found = set(taken), {}
    for plugin in plugins:
        name = _name_of(plugin)
        if name and name not in names:
            found[name] = plugin
            names.add(name)
        else:
            why = f"there is a {name} already" if name else "it has no proper name"
            log.error("{what} is left out, {why}: {plugin!r}", what=what, why=why, plugin=plugin)
    return found


def _name_of(plugin: Any) -> str:
    """Return what *plugin* is called, "" where that can't be."""
    try:
        name = plugin.name
    except Exception:
        return ""
    return name if isinstance(name, str) and PLUGIN_NAME.fullmatch(name) else ""
