"""The standby of a cluster's client, as tests look at it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

from .programs import Cluster, eventually


class Standby:
    """Makes sure that one runs, and tells of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.client = cluster.client
        self.cluster = cluster
        if self.state() is None:
            assert self.client.sh("whoami").status == 0
        self.again()

    def again(self) -> int:
        """Wait for one that takes calls, and return its pid."""
        self.pid = int(self.client.standby()["pid"])
        return self.pid

    def state(self) -> dict[str, Any] | None:
        answer = self.client.sh("standby", "--json")
        assert answer.status == 0, answer
        return answer.json["state"]

    @property
    def calls(self) -> int:
        """How many commands it has been given."""
        state = self.state()
        return int(state["calls"]) if state is not None and state["pid"] == self.pid else -1

    @property
    def folder(self) -> Path:
        return self.client.runtime / "clustersh"

    @property
    def socket(self) -> Path:
        state = self.state()
        assert state is not None
        return Path(state["socket"])

    def runs(self) -> bool:
        return runs(self.pid)

    def until_ended(self) -> None:
        eventually(lambda: not self.runs(), what=f"the end of {self.pid}")


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
