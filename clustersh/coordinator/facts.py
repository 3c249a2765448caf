"""What machines say of themselves, checked: none of it is believed to be well-formed, or to be true.

It is shown, and makes groups that one may ask for (``@os:linux``); nothing is decided by it. People's own words on
machines are labels (group_book.py), and never mixed with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from sys import intern

from ..wire.ids import MACHINE_NAME
from ..wire.link import Facts

_LENGTH = 128
_PATH_LENGTH = 1024
_MAX_CPUS = 1 << 16
_MAX_MEMORY = 1 << 60
_VERSION = re.compile(r"[0-9]+\.[0-9]+")
SOURCES = ("os", "arch", "distribution", "python")
"""The facts by which machines can be asked for."""


def sane(facts: Facts) -> Facts:
    """Return *facts* as they may be kept and shown: short, on one line, nothing impossible."""
    texts = {
        name: _line(value, _PATH_LENGTH if name == "home" else _LENGTH)
        for name in Facts.__struct_fields__
        if isinstance(value := getattr(facts, name), str)
    }
    os, _, arch = texts["platform"].partition("/")
    return Facts(
        **dict(texts, os=texts["os"] or os, arch=texts["arch"] or arch),
        cpus=facts.cpus if facts.cpus <= _MAX_CPUS else 0,
        memory=facts.memory if facts.memory <= _MAX_MEMORY else 0,
    )


def _line(text: str, length: int) -> str:
    """A text that is too long or has control characters is none: half of it would be another one."""
    return intern(text) if len(text) <= length and text.isprintable() else ""


def groups_of(facts: Facts) -> Mapping[str, tuple[str, ...]]:
    """Return the groups that a machine is in by its *facts*: by source, each of SOURCES.

    ``debian-13`` is in ``debian`` too; of Python's version only the first two numbers count.
    """
    family, _, release = facts.distribution.rpartition("-")
    version = _VERSION.match(facts.python)
    words = {
        "os": (facts.os,),
        "arch": (facts.arch,),
        "distribution": (facts.distribution, family) if release[:1].isdigit() else (facts.distribution,),
        "python": (version[0] if version else "",),
    }
    return {source: tuple(filter(None, map(_word, words[source]))) for source in SOURCES}


def _word(text: str) -> str:
    """Return *text* as a group is called, "" where it can't be."""
    word = text.lower()
    return intern(word) if MACHINE_NAME.fullmatch(word) else ""


class FactBook:
    """Which machines are in which group of which source; kept up as they come, so that asking costs nothing."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, set[str]]] = {source: {} for source in SOURCES}
        self._known: dict[str, Facts] = {}

    @property
    def groups(self) -> Mapping[str, Mapping[str, set[str]]]:
        """The ids of the machines, by source and group."""
        return self._groups

    def note(self, machine_id: str, facts: Facts) -> None:
        """Take in what a machine says now."""
        if self._known.get(machine_id) == facts:
            return
        self.forget(machine_id)
        self._known[machine_id] = facts
        for source, names in groups_of(facts).items():
            for name in names:
                self._groups[source].setdefault(name, set()).add(machine_id)

    def forget(self, machine_id: str) -> None:
        """Drop a machine."""
        facts = self._known.pop(machine_id, None)
        for source, names in groups_of(facts).items() if facts else ():
            groups = self._groups[source]
            for name in names:
                groups[name].discard(machine_id)
                if not groups[name]:
                    del groups[name]
