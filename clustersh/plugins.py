"""What others install beside clustersh (docs/plugins.md): telling plugins apart by the names that they have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.plugin import getPlugins

from twisted import plugins as drop_in

from .wire.ids import PLUGIN_NAME

log = Logger()


def installed(interface: type[Any]) -> list[Any]:
    """Return the plugins that provide *interface*; blocks.

    A folder in which they can't be looked for is logged and left out. So is one where every user of this host could
    put some, or change one: they would run as this program's user.
    """
    found: list[Any] = []
    everywhere = drop_in.__path__[:]
    try:
        for folder in dict.fromkeys(everywhere):
            if (open_to_all := _open_part(Path(folder))) is not None:
                why = "everybody can write there: chmod o-w"
                log.error("plugins in {folder} are left out, {why} {part}", folder=folder, why=why, part=open_to_all)
                continue
            drop_in.__path__[:] = [folder]
            try:
                found += getPlugins(interface)
            except (Exception, SystemExit):
                log.failure("plugins in {folder} can't be looked for", folder=folder)
    finally:
        drop_in.__path__[:] = everywhere
    return found


def _open_part(folder: Path) -> Path | None:
    """Return the folder, or what in it, every user of this host can write to: Twisted's cache there is run, too."""
    try:
        parts = [folder, *folder.iterdir()]
    except OSError:
        parts = [folder]
    return next(filter(_is_open, parts), None)


def _is_open(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o002)
    except OSError:
        return False


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
