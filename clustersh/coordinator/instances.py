"""Several agents with one key (a copied home, a cloned machine): the one that came last serves the machine.

Each agent process names itself by a random *instance*. The order in which this coordinator first saw them is their
age, so an older one that tries again is turned away for as long as the newer one has its link, and gets the machine
back only when that is gone. Nothing is kept over a restart: who comes last then is the newest.
"""

from __future__ import annotations

KEPT = 16
"""Instances remembered a machine: every restart of its agent is one."""


class Instances:
    """The agents that each machine's key has served, oldest first."""

    def __init__(self) -> None:
        self._seen: dict[str, list[str]] = {}

    def note(self, machine_id: str, instance: str) -> None:
        """An agent has come, for the first time or again."""
        seen = self._seen.setdefault(machine_id, [])
        if instance not in seen:
            seen.append(instance)
            del seen[:-KEPT]

    def is_older(self, machine_id: str, instance: str, other: str) -> bool:
        """Whether *instance* first came before *other*; both are noted."""
        seen = self._seen[machine_id]
        return instance != other and (other in seen and seen.index(instance) < seen.index(other))
