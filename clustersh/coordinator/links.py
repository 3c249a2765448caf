"""An agent's link as the fleet knows it, and what is left of one that is gone."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from twisted.internet.defer import Deferred

from ..wire.link import Facts, FromCoordinator, Hello
from .bus import Answer
from .registry import Key

MAX_UNREACHED = 300
"""Characters of why a machine is not reached."""


class Seen(msgspec.Struct):
    """What is known of a machine's last link: when (seconds since 1970), its facts, version and address."""

    at: float
    facts: Facts = Facts()
    version: str = ""
    address: str = ""


@dataclass
class Link:
    """One agent's connection. *send* takes messages; *close* ends it, saying why.

    *replaced*: another agent with the same key has the machine; this one should stay away for long. *round_trip_s*
    is how long a ping takes there and back, smoothed. *unreached*: why its agent doesn't reach a machine it carries.
    """

    machine: Key
    address: str
    send: Callable[[FromCoordinator], None]
    close: Callable[[str], None]
    epoch: int = 0
    hello: Hello | None = None
    welcomed: bool = False
    replaced: bool = False
    offsets: array[float] = field(default_factory=lambda: array("d"))
    round_trip_s: float | None = None
    unreached: str = ""
    questions: dict[int, Deferred[Answer]] = field(default_factory=dict)
    feeding: int = 0
