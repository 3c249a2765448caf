"""kill -9 of coordinator and agent at every point of a run: it ran at most once, and has exactly one outcome."""

from __future__ import annotations

import re
import signal
import time

import pytest

from ..real.programs import end, eventually
from .services import FaultyCluster
from .soak.cluster import descriptors
from .steps import times_run

BEFORE_IT_MAY_START = ["run-asked", "run-recorded", "run-dispatched"]
COORDINATOR_POINTS = [
    *BEFORE_IT_MAY_START,
    "ledger-written",
    "ledger-synced",
    "start-heard",
    "end-heard",
    "end-recorded",
    "end-acknowledged",
]
AGENT_POINTS = [
    "start-received",
    "start-journalled",
    "process-spawned",
    "command-ended",
    "end-journalled",
    "end-told",
    "end-settled",
]


@pytest.mark.parametrize("point", COORDINATOR_POINTS)
def test_a_coordinator_killed_at_any_point_of_a_run(cluster: FaultyCluster, point: str) -> None:
    counter = cluster.folder_of_jobs() / "counter"
    cluster.arm(cluster.coordinator, point)
    waiting = cluster.client.open("clustersh", "run", "ws1", f"echo once >> {counter}; sleep 0.2; echo done")
    cluster.until_dead(cluster.coordinator_process)
    cluster.restart_coordinator()
    out, err = waiting.communicate(timeout=60)
    uuid, times = cluster.newest_run(), times_run(counter)
    if waiting.returncode == 0:
        assert (out, times, cluster.outcomes(uuid)) == (b"done\n", 1, ["completed"]), err
    else:
        assert (waiting.returncode, out, times) == (125, b"", 0), err
        assert point in (*BEFORE_IT_MAY_START, "ledger-written", "ledger-synced")
        assert cluster.outcomes(uuid) == ["not-started"]
        assert err.startswith(b"ERROR: ") and b"nothing ran" in err, err


@pytest.mark.parametrize("point", ["ledger-written", "ledger-synced"])
def test_a_coordinator_killed_while_it_records_an_outcome(cluster: FaultyCluster, point: str) -> None:
    folder = cluster.folder_of_jobs()
    command = f"echo once >> {folder}/counter; until [ -e {folder}/go ]; do sleep 0.02; done; echo done"
    waiting = cluster.client.open("clustersh", "run", "ws1", command)
    eventually((folder / "counter").exists)
    uuid = cluster.newest_run()
    cluster.until_job(uuid, "running")
    cluster.arm(cluster.coordinator, point)
    (folder / "go").touch()
    cluster.until_dead(cluster.coordinator_process)
    cluster.restart_coordinator()
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, b"done\n"), err
    assert times_run(folder / "counter") == 1
    assert cluster.outcomes(uuid) == ["completed"]


@pytest.mark.parametrize("point", AGENT_POINTS)
def test_an_agent_killed_at_any_point_of_a_run(cluster: FaultyCluster, point: str) -> None:
    counter = cluster.folder_of_jobs() / "counter"
    cluster.until_settled()
    cluster.arm(cluster.agent, point)
    waiting = cluster.client.open("clustersh", "run", "ws1", f"echo once >> {counter}; sleep 0.2; echo done")
    cluster.until_dead(cluster.agent_process)
    cluster.restart_agent()
    out, err = waiting.communicate(timeout=60)
    uuid, times = cluster.newest_run(), times_run(counter)
    eventually(lambda: cluster.outcomes(uuid), what=cluster.logs())
    if point == "start-received":
        assert (waiting.returncode, times, cluster.outcomes(uuid)) == (125, 0, ["not-started"]), err
    elif point in ("start-journalled", "process-spawned", "command-ended"):
        assert (waiting.returncode, cluster.outcomes(uuid)) == (123, ["interrupted"]), err
        assert times <= (0 if point == "start-journalled" else 1)
        assert re.search(rb"ERROR: .*agent restarted", err), err
    else:
        assert (waiting.returncode, out, times) == (0, b"done\n", 1), err
        assert cluster.outcomes(uuid) == ["completed"]


def test_both_killed_in_mid_command(cluster: FaultyCluster) -> None:
    counter = cluster.folder_of_jobs() / "counter"
    waiting = cluster.client.open("clustersh", "run", "ws1", f"echo once >> {counter}; echo so far; sleep 300")
    eventually(counter.exists)
    uuid = cluster.newest_run()
    eventually(lambda: cluster.sh("cat", "ws1", uuid).out == "so far\n")
    end(cluster.agent_process, signal.SIGKILL)
    end(cluster.coordinator_process, signal.SIGKILL)
    cluster.restart_coordinator()
    cluster.restart_agent()
    waiting.communicate(timeout=60)
    assert waiting.returncode == 123
    assert cluster.outcomes(uuid) == ["interrupted"]
    assert times_run(counter) == 1


def test_a_client_gives_up_after_its_time_and_says_what_to_do(cluster: FaultyCluster) -> None:
    folder = cluster.folder_of_jobs()
    config = cluster.client.path / "config.toml"
    config.write_text('[client]\nretry_for = "2s"\n')
    try:
        command = f"touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done; echo done"
        waiting = cluster.client.open("clustersh", "run", "ws1", command)
        eventually((folder / "begun").exists)
        uuid = cluster.newest_run()
        # It has a reactor once its first request, which waits two seconds for the end, was answered with the uuid.
        eventually(lambda: any("eventpoll" in each for each in descriptors(waiting.pid)))
        end(cluster.coordinator_process, signal.SIGKILL)
        gone = time.monotonic()
        out, err = waiting.communicate(timeout=30)
        assert 2.0 <= time.monotonic() - gone < 20.0
    finally:
        config.write_text("")
        (folder / "go").touch()
        cluster.restart_coordinator()
        cluster.until_status("ws1", "online")
    assert (waiting.returncode, out) == (123, b"")
    assert err.startswith(b"ERROR: no answer from the coordinator for 2 seconds: "), err
    assert err.endswith(b"hint: it may still run: clustersh wait %s\n" % uuid.encode()), err
    waited = cluster.sh("wait", uuid)
    assert (waited.status, waited.out, cluster.outcomes(uuid)) == (0, "done\n", ["completed"])
