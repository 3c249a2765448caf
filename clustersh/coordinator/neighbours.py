"""Warns of an agent that runs as the coordinator's own user: its jobs could read the CA's key."""

from __future__ import annotations

from typing import NamedTuple

from twisted.logger import Logger

from ..wire.link import Facts


class Neighbour(NamedTuple):
    """A user on a host, as agents tell it in their facts."""

    hostname: str
    user: str


class Neighbours:
    """Looks at who comes; *own* is whom the coordinator runs as. Each machine is warned of once."""

    def __init__(self, own: Neighbour) -> None:
        self._log = Logger()
        self._own = own
        self._warned: set[str] = set()

    def came(self, machine_id: str, facts: Facts) -> bool:
        """A machine came with these *facts*; return whether it was warned of now."""
        if Neighbour(facts.hostname, facts.user) != self._own or machine_id in self._warned:
            return False
        self._warned.add(machine_id)
        self._log.warn(
            "the agent on this host runs as {user}, as the coordinator does: every command it runs could read the "
            "coordinator's keys; run them as different users, unless they are one trust domain",
            user=facts.user,
        )
        return True
