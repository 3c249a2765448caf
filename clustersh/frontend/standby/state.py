"""What a standby says of itself."""

from __future__ import annotations

import msgspec


class State(msgspec.Struct, frozen=True):
    """What ``clustersh standby`` shows."""

    pid: int
    version: str
    socket: str
    started: float
    calls: int
    running: int
    idle_s: float
    ends_after_s: float
