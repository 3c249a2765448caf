"""Whole clusters: a coordinator, the agent of the machine ws1 and a client, let in once a process of tests.

Each cluster is of programs and files of its own. What theirs kept of being let in is what the real enrollment and the
real pairing left once: those have their own tests.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .programs import Cluster, Home, end, log_in, make_home, stand_by


class Homes(NamedTuple):
    """The homes of one cluster's programs. Each keeps what it has in a folder named as here."""

    coordinator: Home
    agent: Home
    client: Home

    def let_in(self, number: int = 0) -> None:
        """Have the machine and the client be let in by the coordinator, though none of the programs ever ran here.

        Coordinators of one *number* have one CA, and their clients and machines the same keys.
        """
        for part, home in self._asdict().items():
            home.path.mkdir(mode=0o700, exist_ok=True)
            with tarfile.open(fileobj=io.BytesIO(_kept(number)[part])) as archive:
                archive.extractall(home.path, filter="fully_trusted")

    def tell(self, agents: str, clients: str) -> None:
        """Tell them the coordinator's address, as the agent gets there and as the client does."""
        for home, name, address in (
            (self.agent, "agent/agent.json", agents),
            (self.client, "client/login.json", clients),
        ):
            path = home.path / name
            path.write_text(json.dumps({**json.loads(path.read_bytes()), "coordinator": address}))

    def stop(self) -> None:
        """End every program that is left."""
        for home in reversed(self):
            home.stop()


def make_cluster(folder: Path, prepare: Callable[[Home], object] = lambda home: None, **client_environ: str) -> Cluster:
    """Start the real programs, with the agent let in and the client logged in.

    *prepare* is given the agent's home first, *client_environ* is what the client's environment has more.
    """
    homes = coordinator, agent, client = Homes(*(make_home(folder, name) for name in Homes._fields))
    prepare(agent)
    client.environ.update(client_environ)
    homes.let_in()
    coordinator_process = coordinator.start("clusterd", "--listen", "127.0.0.1:0")
    try:
        address = coordinator.address()
        homes.tell(address, address)
        agent_process = agent.start("clusteragent")
        stand_by(client)
        cluster = Cluster(*homes, coordinator_process, agent_process, address)
        cluster.until_status("ws1", "online")
    except BaseException:
        homes.stop()
        raise
    return cluster


@cache
def _kept(number: int) -> dict[str, bytes]:
    """Let a machine and a client in by the real programs; return what each keeps, as an archive, for that *number*."""
    with tempfile.TemporaryDirectory(prefix="clustersh-let-in-") as folder:
        homes = coordinator, agent, client = Homes(*(make_home(Path(folder), name) for name in Homes._fields))
        client.environ["CLUSTERSH_STANDBY"] = "off"
        try:
            coordinator_process = coordinator.start("clusterd", "--listen", "127.0.0.1:0")
            address = coordinator.address()
            enrolled = agent.run("clusteragent", "enroll", f"http://{address}", "--name", "ws1")
            assert enrolled.status == 0, enrolled
            log_in(coordinator, client, address)
            end(coordinator_process)
        finally:
            homes.stop()
        return {part: _packed(home.path / part) for part, home in homes._asdict().items()}


def _packed(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, folder.name)
    return content.getvalue()
