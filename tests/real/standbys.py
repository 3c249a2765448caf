"""The standby of a cluster's client, as tests look at it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

from .programs import Cluster, Result, eventually

NOTES_WAITS = """\
import _socket, types
from clustersh.frontend.standby import launcher
class Noted(_socket.socket):
    def recv(self, *given):
        try:
            return super().recv(*given)
        except TimeoutError:
            with open({!r}, "a") as file:
                print(self.gettimeout(), file=file)
            raise
launcher._socket = types.SimpleNamespace(**{{**vars(_socket), "socket": Noted}})
"""
"""A module that Python imports at its start: it notes each wait for a standby that ended in vain."""


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


def standbys_of(cluster: Cluster) -> list[int]:
    """Return the pids of all that its client has, wherever they are; it needs /proc."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and _is_standby(path, cluster)]


def _is_standby(process: Path, cluster: Cluster) -> bool:
    try:
        words, environ = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
    except OSError:
        return False
    return b"clustersh.frontend.standby" in words and os.fsencode(cluster.client.path) in environ


def waited(cluster: Cluster, folder: Path, *words: str) -> tuple[Result, list[float]]:
    """Run a command, and return with how it ended the seconds that its launcher waited in vain, each time."""
    notes = folder / "waits"
    notes.write_text("")
    (folder / "launcher").mkdir(exist_ok=True)
    (folder / "launcher" / "sitecustomize.py").write_text(NOTES_WAITS.format(str(notes)))
    answer = cluster.sh(*words, environ={"PYTHONPATH": str(folder / "launcher")})
    return answer, [float(line) for line in notes.read_text().splitlines()]
