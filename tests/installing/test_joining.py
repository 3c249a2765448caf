"""Machines join by the line that the coordinator printed, over a network of their own and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .hosts import USER, Host, Hub, Network

pytestmark = pytest.mark.timeout(600)
NAMES = ("db1", "web1", "web2")


@pytest.fixture(scope="module")
def machines(net: Network, hub: Hub) -> Iterator[list[Host]]:
    """Three machines that joined at the same time."""
    hosts = [net.host(name, number) for number, name in enumerate(NAMES, 2)]
    before = [host.files() for host in hosts]
    with ThreadPoolExecutor(len(hosts)) as pool:
        for host, said in zip(hosts, pool.map(lambda host: host.check(hub.machine_line), hosts), strict=True):
            assert said == f"{host.name} has joined hub:5672 and is online; commands run as {USER}.\n"
    yield hosts
    for host, files in zip(hosts, before, strict=True):
        said = host.check(f"{hub.machine_line} -s -- --uninstall")
        assert said == f"{host.name} has left, and clusteragent is removed.\n"
        assert host.files() - files == set()
        assert host.processes() == ""
        assert hub.status_of(host.name) == ""


def test_each_runs_commands(hub: Hub, machines: list[Host]) -> None:
    for host in machines:
        assert hub.sh(f"run {host.name} 'hostname; id -un; pwd'").split() == [host.name, USER, f"/home/{USER}"]
