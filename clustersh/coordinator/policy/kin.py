"""Machines on which a command does the same, so that it is judged once for all of them."""

from __future__ import annotations

from typing import NamedTuple

_SYSTEMS = frozenset({"linux", "darwin", "freebsd", "windows"})
_EXECUTORS = frozenset({"", "bash", "powershell"})


class Kin(NamedTuple):
    """What runs commands there, as far as it matters to the guard; "" is what isn't known."""

    system: str
    executor: str


def kin_of(platform: str, executor: str) -> Kin:
    """Return what a machine is that says so of itself: text of any kind."""
    system = platform.partition("/")[0].lower()
    return Kin(system if system in _SYSTEMS else "", executor if executor in _EXECUTORS else "another")
