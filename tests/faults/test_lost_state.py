"""State that is wiped, restored from an old backup, or wanted by two; machines that are forgotten in mid-command."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..real.programs import Home, end, eventually, log_in
from .services import AGENT_CONFIG, FaultyCluster, faulty_cluster, user_home
from .steps import Steps, times_run


@pytest.fixture
def own_cluster(place: Path) -> Iterator[FaultyCluster]:
    with faulty_cluster(place) as made:
        yield made


def new_steps(cluster: FaultyCluster) -> Steps:
    return Steps(cluster.folder_of_jobs())


def detach(cluster: FaultyCluster, steps: Steps, *options: str) -> str:
    """Start a command that waits to be let go, and return its uuid."""
    answer = cluster.sh("run", "--detach", *options, "ws1", steps.shell("echo begun", "echo done"))
    assert answer.status == 0, answer
    steps.until(1)
    return answer.out.strip()


def test_a_store_that_was_wiped_has_lost_its_open_job(cluster: FaultyCluster) -> None:
    steps = new_steps(cluster)
    uuid = detach(cluster, steps)
    waiting = cluster.client.open("clustersh", "wait", uuid)
    end(cluster.agent_process, signal.SIGKILL)
    store = cluster.agent.path / "agent"
    for path in (*store.glob("journal*"), store / "store.json"):
        path.unlink()
    shutil.rmtree(store / "jobs")
    cluster.restart_agent()
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 123
    assert b"the record of %s on ws1 is lost: the machine's job store is gone" % uuid.encode() in err, err
    steps.go(1)  # nothing knows of its process any more
    assert cluster.sh("run", "ws1", "echo new").out == "new\n"
    assert cluster.outcomes(uuid) == ["lost"]
    gone = cluster.sh("cat", "ws1", uuid)
    assert gone.status == 125 and "Traceback" not in gone.err, gone


def test_a_machine_forgotten_in_mid_command(own_cluster: FaultyCluster) -> None:
    cluster, steps = own_cluster, new_steps(own_cluster)
    waiting = cluster.client.open("clustersh", "run", "ws1", steps.shell("echo begun", "touch $HOME/ended"))
    steps.until(1)
    uuid = cluster.newest_run()
    assert cluster.coordinator.run("clusterd", "forget", "ws1").status == 0
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 123
    assert b"the record of %s on ws1 is lost: the machine was forgotten" % uuid.encode() in err, err
    eventually(lambda: "the key of ws1 was forgotten" in status_of(cluster.agent), what=cluster.logs())
    said = status_of(cluster.agent)
    assert "run: clusteragent enroll --again" in said and "jobs:        1 running" in said

    # The name is free for another machine.
    other = user_home(cluster.folder, "other", AGENT_CONFIG)
    assert other.run("clusteragent", "enroll", f"http://{cluster.address}", "--name", "ws1").status == 0
    other.start("clusteragent")
    cluster.until_status("ws1", "online")
    assert cluster.sh("run", "ws1", "echo other").out == "other\n"

    # What the first one does when it is let in again is its own: the job has had its outcome.
    steps.go(1)
    eventually((cluster.agent.path.parent / "ended").exists)
    end(cluster.agent_process)
    again = cluster.agent.run("clusteragent", "enroll", "--again", f"http://{cluster.address}", "--name", "ws2")
    assert again.status == 0, again
    cluster.agent_process = cluster.agent.start("clusteragent")
    cluster.until_status("ws2", "online")
    assert cluster.sh("run", "ws2", "echo back").out == "back\n"
    assert (times_run(steps.folder / "counter"), cluster.outcomes(uuid)) == (1, ["lost"])
    journal = cluster.agent.path / "agent" / "journal"
    eventually(lambda: re.search(rf'"is":"acknowledged","uuid":"{uuid}"', journal.read_text()), what=cluster.logs())
    other.stop()


def test_a_coordinator_restored_from_an_older_backup(own_cluster: FaultyCluster) -> None:
    cluster = own_cluster
    ann, bob = (user_home(cluster.folder, name) for name in ("ann", "bob"))
    log_in(cluster.coordinator, ann, cluster.address, "ann@desk")
    work = {name: new_steps(cluster) for name in ("ended since", "open", "unknown", "keyed")}
    uuids = {name: detach(cluster, work[name]) for name in ("ended since", "open")}
    backup = back_up(cluster)

    keyed = ("run", "--key", "mine", "ws1", f"echo once >> {work['keyed'].folder}/counter; echo kept")
    assert cluster.sh(*keyed).out == "kept\n"
    uuids["keyed"] = cluster.newest_run()
    uuids["unknown"] = detach(cluster, work["unknown"])
    work["ended since"].go(1)
    assert cluster.sh("wait", uuids["ended since"]).out == "begun\ndone\n"
    assert cluster.coordinator.run("clusterd", "revoke", "ann@desk").status == 0
    log_in(cluster.coordinator, bob, cluster.address, "bob@desk")
    assert cluster.coordinator.run("clusterd", "audit", "verify", "--witness").status == 0

    end(cluster.coordinator_process)
    restore(cluster, backup)
    cluster.restart_coordinator()
    cluster.until_status("ws1", "online")

    # What the old ledger has as open is accounted for; what it doesn't know is an orphan; nothing is run again.
    for name in ("open", "unknown"):
        work[name].go(1)
    for name in ("ended since", "open"):
        assert cluster.sh("wait", uuids[name]).out == "begun\ndone\n"
    orphan = eventually(lambda: [each for each in cluster.records(uuids["unknown"]) if each["is"] == "orphan"])
    assert [each["outcome"]["exit_code"] for each in orphan] == [0]
    fresh = cluster.sh("run", "--detach", "ws1", "echo new").out.strip()
    assert cluster.sh("wait", fresh).out == "new\n"
    assert fresh > max(uuids.values())
    known = {name: cluster.outcomes(uuid) for name, uuid in uuids.items()}
    assert known == {"ended since": ["completed"], "open": ["completed"], "unknown": [], "keyed": []}
    for name in ("unknown", "keyed"):
        answer = cluster.sh("wait", uuids[name])
        assert answer.status == 125 and f"no run '{uuids[name]}' is known" in answer.err, answer
    assert [times_run(steps.folder / "counter") for steps in work.values()] == [1, 1, 1, 1]

    # As docs/operations.md says: a forgotten key is a new one, who was revoked is in again, who came since is not.
    assert (cluster.sh(*keyed).out, times_run(work["keyed"].folder / "counter")) == ("kept\n", 2)
    assert ann.sh("machines").status == 0
    refused = bob.sh("machines")
    assert refused.status == 125 and "this key was never let in here" in refused.err, refused

    verified = cluster.coordinator.run("clusterd", "audit", "verify")
    assert verified.status == 0, verified
    found = cluster.coordinator.run("clusterd", "audit", "verify", "--witness")
    assert found.status == 1 and re.search(r"ws1 was told of (another )?record \d+", found.err), found


@pytest.mark.parametrize("program", ["clusterd", "clusteragent"])
def test_of_two_that_start_at_once_on_one_home_one_serves(own_cluster: FaultyCluster, program: str) -> None:
    cluster = own_cluster
    home, words = (
        (cluster.agent, ()) if program == "clusteragent" else (cluster.coordinator, ("--listen", cluster.address))
    )
    end(cluster.agent_process if program == "clusteragent" else cluster.coordinator_process, signal.SIGKILL)
    before = len(home.log.read_text())
    both = [home.start(program, *words) for _ in range(2)]
    eventually(lambda: any(each.poll() is not None for each in both), what=home.log.read_text())
    [left] = [each for each in both if each.poll() is None]
    [gone] = [each for each in both if each is not left]
    assert gone.returncode == 1
    said = home.log.read_text()[before:]
    assert re.search(rf"(?m)^ERROR: .*(in use by process|\(process) {left.pid}\b", said), said
    cluster.until_status("ws1", "online")
    assert cluster.sh("run", "ws1", "echo served").out == "served\n"
    assert left.poll() is None


def back_up(cluster: FaultyCluster) -> Path:
    """Copy the coordinator's state as docs/operations.md says, while it runs."""
    backup = cluster.folder / "backup"
    subprocess.run(["cp", "-a", cluster.coordinator.path / "coordinator", backup], check=True)
    forget_what_is_no_state(backup)
    return backup


def restore(cluster: FaultyCluster, backup: Path) -> None:
    folder = cluster.coordinator.path / "coordinator"
    shutil.rmtree(folder)
    subprocess.run(["cp", "-a", backup, folder], check=True)


def forget_what_is_no_state(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    shutil.rmtree(folder / "blobs")


def status_of(agent: Home) -> str:
    return agent.run("clusteragent", "status").out
