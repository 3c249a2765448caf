"""Disks that are full, up to the services' reserve or to the last byte, and disks without inodes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import pytest

from ..real.programs import Home, end, eventually, log_in
from .services import FaultyCluster, Held, faulty_cluster, user_home, workplace
from .small_disk import SmallDisk, needs_root, small_disk

pytestmark = [needs_root, pytest.mark.timeout(300)]
MIB = 1 << 20
once = pytest.mark.parametrize("small", [0], ids=["last byte"], indirect=True)
PRINTING = "echo $(seq 2000); sleep 0.02"


@dataclass
class SmallCluster:
    """A cluster whose services have their state on small disks, and leave *reserve* bytes of them free."""

    cluster: FaultyCluster
    disk: SmallDisk
    agent_disk: SmallDisk
    reserve: int

    def fill(self, disk: SmallDisk) -> None:
        """Leave half of what the services leave free: nothing where they leave nothing."""
        disk.fill(leave=self.reserve // 2)


@pytest.fixture(scope="module", params=[4 * MIB, 0], ids=["reserve", "last byte"])
def small(request: pytest.FixtureRequest) -> Iterator[SmallCluster]:
    reserve = request.param
    with workplace() as folder, ExitStack() as disks:
        disk = disks.enter_context(small_disk(folder / "coordinator" / "state", size=16 * MIB, inodes=400))
        agent_disk = disks.enter_context(small_disk(folder / "agent" / "state", size=24 * MIB, inodes=3000))
        with faulty_cluster(
            folder,
            coordinator_config=f"[coordinator]\nreserve = {reserve}\n",
            agent_config=f'[agent]\nreconnect_max = "1s"\nenvironment = "service"\nreserve = {reserve}\n',
        ) as made:
            yield SmallCluster(made, disk, agent_disk, reserve)
            made.check_alive()
            assert made.coordinator.run("clusterd", "audit", "verify", "--witness").status == 0


@pytest.fixture
def cluster(small: SmallCluster) -> Iterator[FaultyCluster]:
    """The cluster, with room on its disks again in the end."""
    yield small.cluster
    for disk in (small.disk, small.agent_disk):
        disk.make_room()


@pytest.fixture
def services(cluster: FaultyCluster) -> Iterator[None]:
    """The services, which get through the test without a restart."""
    services = cluster.coordinator_process, cluster.agent_process
    yield
    assert [service.poll() for service in services] == [None, None]


@pytest.fixture
def others(small: SmallCluster) -> Iterator[list[Home]]:
    """Two more clients, ann@desk and bob@desk."""
    homes = []
    for name in ("ann@desk", "bob@desk"):
        homes.append(user_home(small.cluster.folder, name))
        log_in(small.cluster.coordinator, homes[-1], small.cluster.address, name)
    yield homes
    for home in homes:
        home.stop()


def test_a_full_coordinator_refuses_runs_and_revokes_clients(
    small: SmallCluster, cluster: FaultyCluster, others: list[Home]
) -> None:
    service = cluster.coordinator_process
    held = cluster.hold()
    waiting = others[0].open("clustersh", "wait", held.uuid)
    eventually(lambda: is_connected(waiting.pid))
    small.fill(small.disk)
    cluster.check_refused("[coordinator] reserve" if small.reserve else "No space left on device")
    if not small.reserve:
        held.let_go()
        eventually(lambda: f"{held.uuid}: its end waits to be recorded" in cluster.logs())
        assert cluster.outcomes(held.uuid) == []
    for name in ("ann@desk", "bob@desk"):
        revoked = cluster.coordinator.run("clusterd", "revoke", name)
        assert revoked.status == 0, (revoked, cluster.logs())
    refused = others[1].sh("machines")
    assert refused.status == 125 and "the key of bob@desk was revoked" in refused.err, refused
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 123 and b"the key of ann@desk was revoked" in err, err
    if small.reserve:
        held.let_go()
        assert held.answer()[:2] == (0, b"done\n")
    small.disk.make_room()
    if not small.reserve:
        answer = held.answer()
        assert answer[:2] == (0, b"done\n"), answer
    assert cluster.outcomes(held.uuid) == ["completed"]
    assert cluster.sh("run", "ws1", "echo again").out == "again\n"
    assert service.poll() is None
    end(service, signal.SIGKILL)
    cluster.restart_coordinator()
    assert [home.sh("machines").status for home in others] == [125, 125]
    cluster.until_status("ws1", "online")


def test_a_full_agent_starts_nothing_and_keeps_what_was_printed(
    small: SmallCluster, cluster: FaultyCluster, services: None
) -> None:
    printing = cluster.hold(meanwhile=PRINTING)
    quiet = cluster.hold()
    eventually(lambda: cluster.sh("cat", "ws1", printing.uuid).out)
    small.fill(small.agent_disk)
    if small.reserve:
        until_refused(cluster)
    cluster.check_refused("disk full on the machine")
    quiet.let_go()
    if not small.reserve:
        small.agent_disk.make_room()
    check_cut(cluster, printing, "disk full on the machine")
    assert quiet.answer()[:2] == (0, b"done\n")
    assert cluster.outcomes(quiet.uuid) == ["completed"]


@once
def test_a_machine_without_inodes_starts_nothing(small: SmallCluster, cluster: FaultyCluster, services: None) -> None:
    printing = cluster.hold(meanwhile=PRINTING)
    eventually(lambda: cluster.sh("cat", "ws1", printing.uuid).out)
    small.agent_disk.take_inodes()
    until_refused(cluster)
    cluster.check_refused("disk full on the machine (no inodes left)")
    check_cut(cluster, printing, "disk full on the machine (no inodes left)")


@once
def test_a_coordinator_without_inodes_records_what_it_runs(
    small: SmallCluster, cluster: FaultyCluster, services: None
) -> None:
    folder = cluster.folder_of_jobs()
    (folder / "file").write_text("content")
    small.disk.take_inodes()
    refused = cluster.sh("run", "--file", str(folder / "file"), "ws1", f"touch {folder}/ran")
    assert refused.status == 125 and "the disk is full: the file was not kept" in refused.err, refused
    assert not (folder / "ran").exists()
    assert cluster.sh("run", "ws1", "echo recorded").out == "recorded\n"
    assert cluster.outcomes(cluster.newest_run()) == ["completed"]


def until_refused(cluster: FaultyCluster) -> None:
    """Wait until the agent has looked at its disk, which it does once a second."""
    eventually(lambda: cluster.sh("run", "ws1", "true").status == 125)


def check_cut(cluster: FaultyCluster, printing: Held, reason: str) -> None:
    """The command was ended for *reason*, and what it printed until then is there to be read."""
    status, out, err = printing.answer()
    assert status == 123 and f"command failed on ws1: {reason}".encode() in err, err
    [record] = [record for record in cluster.records(printing.uuid) if record["is"] == "ended"]
    assert record["outcome"] == {"state": "failed", "reason": reason}
    kept = cluster.sh("cat", "ws1", printing.uuid)
    assert len(kept.stdout) == record["output"]["stdout_bytes"] > 0
    assert hashlib.sha256(kept.stdout).hexdigest() == record["output"]["stdout_sha256"]
    assert kept.stdout.startswith(out) and out


def is_connected(pid: int) -> bool:
    return any(link.status == "ESTABLISHED" for link in psutil.Process(pid).net_connections("tcp"))
