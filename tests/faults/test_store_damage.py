"""What becomes of an agent's job store that was torn or filled with NULs while the agent was down."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ..real.programs import end, eventually
from .services import FaultyCluster

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "torn": lambda content: content[: len(content) // 2],
    "NULs": lambda content: bytes(len(content)),
    "empty": lambda content: b"",
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def store(cluster: FaultyCluster) -> Path:
    return cluster.agent.path / "agent"


def job_json(cluster: FaultyCluster, uuid: str) -> Path:
    """Return the job's file, once it is there."""
    return eventually(lambda: next((store(cluster) / "jobs").glob(f"*/{uuid}/job.json"), None))


def printed(cluster: FaultyCluster, text: str) -> str:
    """Run a command that prints *text*, and return its uuid."""
    assert cluster.sh("run", "ws1", f"echo {text}").out == f"{text}\n"
    return cluster.newest_run()


@damaged
def test_a_damaged_job_json_is_made_anew_from_the_journal(cluster: FaultyCluster, damage: Damage) -> None:
    uuid = printed(cluster, "journalled")
    path = job_json(cluster, uuid)
    whole = path.read_bytes()
    end(cluster.agent_process, signal.SIGKILL)
    path.write_bytes(damage(whole))
    cluster.restart_agent()
    assert path.read_bytes() == whole
    assert cluster.sh("cat", "ws1", uuid).out == "journalled\n"


@damaged
def test_a_damaged_job_json_is_told_and_harms_no_other(cluster: FaultyCluster, damage: Damage) -> None:
    uuid, other = printed(cluster, "damaged"), printed(cluster, "whole")
    path = job_json(cluster, uuid)
    end(cluster.agent_process)
    cluster.restart_agent()  # which leaves the ended jobs out of its journal
    eventually(lambda: uuid.encode() not in (store(cluster) / "journal").read_bytes())
    end(cluster.agent_process, signal.SIGKILL)
    eventually(lambda: cluster.status_of("ws1") != "online")  # so that the next one that is online is another
    path.write_bytes(damage(path.read_bytes()))
    cluster.restart_agent()
    told = cluster.sh("cat", "ws1", uuid)
    assert (told.status, told.out) == (125, "") and f"ERROR: {path} is damaged\n" in told.err, told
    assert told.err.endswith("hint: that is on the disk of ws1; how jobs ended there: clustersh history ws1\n")
    assert cluster.job(uuid)["status"] == "completed"
    assert cluster.sh("cat", "ws1", other).out == "whole\n"
    assert cluster.outcomes(uuid) == cluster.outcomes(other) == ["completed"]


@pytest.mark.parametrize("tail", [b'{"is":"ended","uuid":"01', bytes(5000)], ids=["torn", "NULs"])
def test_a_damaged_end_of_the_journal_is_set_aside(cluster: FaultyCluster, tail: bytes) -> None:
    earlier = printed(cluster, "earlier")
    held = cluster.hold()
    aside = set(store(cluster).glob("journal.torn-*"))
    end(cluster.agent_process, signal.SIGKILL)
    with (store(cluster) / "journal").open("ab") as file:
        file.write(tail)
    cluster.restart_agent()
    status, _, err = held.answer()
    assert status == 123 and b"ERROR: the agent restarted on ws1" in err, err
    assert cluster.outcomes(held.uuid) == ["interrupted"]
    assert cluster.sh("cat", "ws1", earlier).out == "earlier\n"
    [new] = set(store(cluster).glob("journal.torn-*")) - aside
    assert new.read_bytes() == tail


def test_a_running_job_that_the_journal_has_lost_is_told_as_lost(cluster: FaultyCluster) -> None:
    earlier = printed(cluster, "earlier")
    held = cluster.hold()
    journal = store(cluster) / "journal"
    end(cluster.agent_process, signal.SIGKILL)
    content = journal.read_bytes()
    kept = content[: content.rindex(b"\n", 0, content.index(held.uuid.encode())) + 1]
    journal.write_bytes(kept + bytes(len(content) - len(kept)))
    cluster.restart_agent()
    status, _, err = held.answer()
    assert status == 123 and b"the machine's agent knows nothing of it any more" in err, err
    held.let_go()
    assert cluster.outcomes(held.uuid) == ["lost"]
    assert cluster.sh("cat", "ws1", earlier).out == "earlier\n"
