"""Disks that fail: syncs and writes that end in an I/O error, and file systems that become read-only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from ..real.programs import eventually, log_in
from .io_faults import build, failing_syncs, failing_writes, needs_fiu, with_faults
from .services import FaultyCluster, faulty_cluster, user_home, workplace
from .small_disk import SmallDisk, needs_root, small_disk

pytestmark = [needs_root, needs_fiu, pytest.mark.timeout(300)]
WHY = "Input/output error"


@dataclass
class FailingCluster:
    """A cluster whose ledger and whose agent's jobs are on disks of their own."""

    cluster: FaultyCluster
    ledger: SmallDisk
    jobs: SmallDisk


@pytest.fixture(scope="module")
def started() -> Iterator[FailingCluster]:
    with workplace() as folder, ExitStack() as disks:
        states = [folder / name / "state" / name for name in ("coordinator", "agent")]
        ledger = disks.enter_context(small_disk(states[0] / "ledger", size=8 << 20, inodes=400))
        jobs = disks.enter_context(small_disk(states[1] / "jobs", size=8 << 20, inodes=400))
        library = build(folder)
        with faulty_cluster(folder, before=lambda home: with_faults(home, library)) as made:
            yield FailingCluster(made, ledger, jobs)
            made.check_alive()
            assert made.coordinator.run("clusterd", "audit", "verify", "--witness").status == 0


@pytest.fixture
def cluster(started: FailingCluster) -> Iterator[FaultyCluster]:
    """The cluster, whose services get through the test without a restart."""
    cluster = started.cluster
    services = cluster.coordinator_process, cluster.agent_process
    yield cluster
    assert cluster.sh("run", "ws1", "echo again").out == "again\n"
    assert [service.poll() for service in services] == [None, None]


def is_recorded(cluster: FaultyCluster, command: str) -> bool:
    return any(record["is"] == "run" and record["command"].get("shell") == command for record in cluster.records())


def test_a_coordinator_that_can_not_sync_runs_nothing(cluster: FaultyCluster) -> None:
    held, files = cluster.hold(), len(cluster.ledger_files())
    with failing_syncs(cluster.coordinator, cluster.coordinator_process):
        command = cluster.check_refused(f"the coordinator can't write its ledger: {WHY}")
        held.let_go()
        eventually(lambda: f"{held.uuid}: its end waits to be recorded" in cluster.logs())
        assert cluster.outcomes(held.uuid) == []
    answer = held.answer()
    assert answer[:2] == (0, b"done\n"), answer
    assert cluster.outcomes(held.uuid) == ["completed"]
    assert len(cluster.ledger_files()) == files + 1
    assert not is_recorded(cluster, command)


def test_a_coordinator_that_can_not_write_runs_nothing_and_revokes(cluster: FaultyCluster) -> None:
    other = user_home(cluster.folder, "other")
    log_in(cluster.coordinator, other, cluster.address, "ann@desk")
    with failing_writes(cluster.coordinator, "/ledger/"):
        command = cluster.check_refused(f"the coordinator can't write its ledger: {WHY}")
        revoked = cluster.coordinator.run("clusterd", "revoke", "ann@desk")
        why = "ERROR: ann@desk is trusted no more, but only until the coordinator restarts: the coordinator can't write"
        assert revoked.status == 125 and revoked.err.startswith(why), revoked
        assert "the key of ann@desk was revoked" in other.sh("machines").err
        assert cluster.sh("machines").status == 0
    assert cluster.coordinator.run("clusterd", "revoke", "ann@desk").status == 0
    assert [record["name"] for record in cluster.records() if record["is"] == "revoked"] == ["ann@desk"]
    assert cluster.sh("run", "ws1", "echo recorded").out == "recorded\n"
    assert not is_recorded(cluster, command)


def test_an_agent_that_can_not_sync_runs_nothing(cluster: FaultyCluster) -> None:
    held = cluster.hold()
    with failing_syncs(cluster.agent, cluster.agent_process):
        cluster.check_refused(f"the job store can't be written: disk error on the machine: {WHY}")
        held.let_go()
        eventually(lambda: f"{held.uuid}: its outcome can't be kept yet" in cluster.logs())
        assert cluster.outcomes(held.uuid) == []
    answer = held.answer()
    assert answer[:2] == (0, b"done\n"), answer
    assert cluster.outcomes(held.uuid) == ["completed"]


def test_an_agent_that_can_not_write_its_journal_runs_nothing(cluster: FaultyCluster) -> None:
    with failing_writes(cluster.agent, "/agent/journal"):
        cluster.check_refused(f"the job store can't be written: disk error on the machine: {WHY}")


def test_a_command_whose_output_can_not_be_written_ends_for_that(cluster: FaultyCluster) -> None:
    held = cluster.hold(meanwhile="echo more; sleep 0.02")
    eventually(lambda: cluster.sh("cat", "ws1", held.uuid).out)
    with failing_writes(cluster.agent, "/output"):
        status, out, err = held.answer()
    assert status == 123 and f"command failed on ws1: disk error on the machine: {WHY}".encode() in err, err
    kept = cluster.sh("cat", "ws1", held.uuid)
    assert kept.stdout == out == b"more\n" * (len(out) // 5)
    assert cluster.outcomes(held.uuid) == ["failed"]


def test_a_ledger_that_becomes_read_only_takes_nothing(started: FailingCluster, cluster: FaultyCluster) -> None:
    held = cluster.hold()
    started.ledger.fill()
    cluster.check_refused(
        "No space left on device"
    )  # which closes the file: open ones keep a disk from being remounted
    eventually(lambda: started.ledger.remount("ro"))
    try:
        cluster.check_refused("the coordinator can't write its ledger: Read-only file system")
        held.let_go()
        eventually(lambda: f"{held.uuid}: its end waits to be recorded" in cluster.logs())
    finally:
        assert started.ledger.remount("rw")
    started.ledger.make_room()
    answer = held.answer()
    assert answer[:2] == (0, b"done\n"), answer
    assert cluster.outcomes(held.uuid) == ["completed"]


def test_a_command_whose_jobs_disk_is_read_only_ends_for_that(started: FailingCluster, cluster: FaultyCluster) -> None:
    eventually(lambda: started.jobs.remount("ro"))
    try:
        answer = cluster.sh("run", "ws1", "while :; do echo more; sleep 0.02; done")
        small = cluster.sh("run", "ws1", "echo in the journal")
    finally:
        assert started.jobs.remount("rw")
    why = "command failed on ws1: disk error on the machine: Read-only file system"
    assert (answer.status, answer.out) == (123, "") and why in answer.err, answer
    assert (small.status, small.out) == (0, "in the journal\n")
    assert cluster.sh("cat", "ws1", cluster.newest_run()).out == "in the journal\n"
