"""Many real agents on this host, each a process with a home of its own; enrolled in bulk, as the simulated ones are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from clustersh.agent.state import IDENTITY_FILE, AgentIdentity
from clustersh.home import write_json
from clustersh.trust.credentials import Credentials
from clustersh.trust.identity import Identity
from tests.real.programs import Home

from .programs import Cluster, eventually

EACH_MIB = 45
AT_ONCE = 8
"""Agents that are started at a time."""
ONLINE_S = 120.0


@contextlib.contextmanager
def real_agents(cluster: Cluster, folder: Path, count: int) -> Iterator[None]:
    """Run the first *count* agents whose credentials are in *folder*; they don't serve as simulated ones any more."""
    homes = [_home(cluster.address, place) for place in sorted(folder.iterdir())[:count]]
    with contextlib.ExitStack() as running, contextlib.closing(cluster.rest()) as rest:
        before = rest.get("/v1/whoami")["online"]
        for number, home in enumerate(homes, 1):
            running.callback(home.stop)
            home.start("clusteragent")
            if number % AT_ONCE == 0 or number == count:
                expected = before + number
                eventually(lambda: rest.get("/v1/whoami")["online"] >= expected, ONLINE_S, f"{expected} online")  # noqa: B023
        yield


def _home(address: str, place: Path) -> Home:
    """Make a home around the credentials in *place*."""
    agent = place.rename(place.with_name(f".{place.name}"))
    place.mkdir(mode=0o700)
    agent = agent.rename(place / "agent")
    identity = Identity.from_certificate(Credentials.load(agent, datetime.now(UTC)).certificate)
    write_json(agent / IDENTITY_FILE, AgentIdentity(address, identity.name, identity.id))
    # Which environment commands get is found out once, with a login shell, if it isn't said.
    (place / "config.toml").write_text('[agent]\nenvironment = "service"\n')
    return Home(place, place / "log")


def room_for() -> int:
    """Return how many real agents there is memory for, with 2 GiB left."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return max(0, (available // 1024 - 2048) // EACH_MIB)
