"""One run on several real machines, over REST: what differs, what is equal, and who is away, slow or killed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .many import Fleet, make_fleet
from .programs import eventually

NAMES = ("web01", "web02", "web03", "web04")
ALL = ",".join(NAMES)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    yield made
    made.stop()


def asked(command: str, target: str = ALL, **options: Any) -> dict[str, Any]:
    return {"target": target, "command": {"shell": command}, **options}


def by_machine(run: dict[str, Any], field: str) -> dict[str, Any]:
    return {job["machine"]: job[field] for job in run["jobs"]}


def test_one_request_is_a_job_on_each_machine(fleet: Fleet) -> None:
    request = asked("echo $CLUSTERSH_JOB")
    status, run = fleet.call("POST", "/v1/runs", request, wait_s=30, key="each")
    assert status == 200 and run["raw"] is False and run["target"] == ALL, run
    assert [job["machine"] for job in run["jobs"]] == list(NAMES)
    for job in run["jobs"]:
        assert (job["uuid"], job["status"], job["stdout"]) == (run["uuid"], "completed", f"{run['uuid']}\n")
    assert fleet.call("POST", "/v1/runs", request, wait_s=30, key="each") == (200, run)
    status, other = fleet.call("POST", "/v1/runs", asked("true"), key="each")
    assert (status, other["type"]) == (409, "key-conflict")


def test_outputs_share_the_limit_and_equal_ones_stand_there_once(fleet: Fleet) -> None:
    command = "case $CLUSTERSH_MACHINE in web01) echo small;; web04) seq 1000 9999;; *) seq 1 9999;; esac"
    status, run = fleet.call("POST", "/v1/runs?fold=true", asked(command, limit_bytes=2006), wait_s=30, key="shares")
    assert status == 200
    numbers = "".join(f"{number}\n" for number in range(1, 10_000))
    thousands = "".join(f"{number}\n" for number in range(1000, 10_000))
    assert by_machine(run, "same_as") == {"web01": None, "web02": None, "web03": "web02", "web04": None}
    assert by_machine(run, "stdout") == {
        "web01": "small\n",
        "web02": numbers[:1000],
        "web03": "",
        "web04": thousands[:1000],
    }
    assert by_machine(run, "truncated") == {"web01": False, "web02": True, "web03": True, "web04": True}
    status, whole = fleet.call("GET", f"/v1/runs/{run['uuid']}?limit=1000000")
    texts = {"web01": "small\n", "web02": numbers, "web03": numbers, "web04": thousands}
    assert by_machine(whole, "stdout") == texts, "what is larger than all is given whole"
    status, none = fleet.call("GET", f"/v1/runs/{run['uuid']}?limit=0")
    assert set(by_machine(none, "stdout").values()) == {""}


def test_ends_come_in_their_order_and_a_slow_machine_holds_up_nobody(fleet: Fleet, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"[ $CLUSTERSH_MACHINE != web02 ] || until [ -e {gate} ]; do sleep 0.05; done; echo $CLUSTERSH_MACHINE"
    status, run = fleet.call("POST", "/v1/runs", asked(command), key="slow")
    assert status == 202
    path, seen = f"/v1/runs/{run['uuid']}/ends?limit=100&after=", list[dict[str, Any]]()
    while len(seen) < 3:
        status, ends = fleet.call("GET", f"{path}{len(seen)}", wait_s=30)
        assert status == 200 and ends["jobs"] and not ends["ended"], ends
        seen += ends["jobs"]
        assert ends["next"] == len(seen)
    assert sorted(job["machine"] for job in seen) == ["web01", "web03", "web04"]
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(fleet.call("GET", f"{path}3", wait_s=60)))
    waiting.start()
    gate.touch()
    waiting.join()
    [(status, last)] = answers
    assert status == 200 and last["ended"] and last["next"] == 4
    assert [(job["machine"], job["stdout"]) for job in last["jobs"]] == [("web02", "web02\n")]
    again = fleet.call("GET", f"{path}0")[1]
    assert again["jobs"] == [*seen, *last["jobs"]] and again["ended"]


def test_a_cancel_reaches_every_machine(fleet: Fleet) -> None:
    command = "[ $CLUSTERSH_MACHINE = web03 ] || sleep 600"
    status, run = fleet.call("POST", "/v1/runs", asked(command), wait_s=0, key="cancel")
    first = fleet.call("GET", f"/v1/runs/{run['uuid']}/ends", wait_s=30)[1]
    assert [job["machine"] for job in first["jobs"]] == ["web03"]
    status, told = fleet.call("POST", f"/v1/runs/{run['uuid']}/cancel")
    assert (status, told["cancelled"], told["ended"]) == (200, ["web01", "web02", "web04"], ["web03"])
    status, run = fleet.call("GET", f"/v1/runs/{run['uuid']}", wait_s=30)
    assert status == 200 and by_machine(run, "status") == {
        **dict.fromkeys(NAMES, "cancelled"),
        "web03": "completed",
    }


def test_one_is_offline_one_is_killed_in_the_middle_and_the_coordinator_too(fleet: Fleet, tmp_path: Path) -> None:
    fleet.stop_agent("web01")
    started = {name: tmp_path / name for name in NAMES}
    command = (
        f"touch {tmp_path}/$CLUSTERSH_MACHINE; echo same; [ $CLUSTERSH_MACHINE != web02 ] || sleep 600; "
        "[ $CLUSTERSH_MACHINE != web03 ] || echo extra"
    )
    request = asked(command)
    status, run = fleet.call("POST", "/v1/runs", request, key="trouble")
    assert status == 202
    kept = fleet.agents["web02"].path / "agent" / "jobs"
    eventually(lambda: any(path.stat().st_size for path in kept.glob(f"*/{run['uuid']}/output")), what="it is kept")
    fleet.stop_agent("web02", signal.SIGKILL)
    status, ends = fleet.call("GET", f"/v1/runs/{run['uuid']}/ends", wait_s=5)
    while len(ends["jobs"]) < 3:
        status, ends = fleet.call("GET", f"/v1/runs/{run['uuid']}/ends", wait_s=5)
    assert sorted(job["machine"] for job in ends["jobs"]) == ["web01", "web03", "web04"] and not ends["ended"]

    fleet.restart_coordinator(signal.SIGKILL)
    fleet.start_agents("web02")
    status, run = fleet.call("POST", "/v1/runs", request, wait_s=30, key="trouble")
    assert status == 200, run
    assert by_machine(run, "status") == {
        "web01": "not-started",
        "web02": "interrupted",
        "web03": "completed",
        "web04": "completed",
    }
    assert not started["web01"].exists()
    assert by_machine(run, "stdout") == {"web01": "", "web02": "same\n", "web03": "same\nextra\n", "web04": "same\n"}

    fleet.stop_agent("web03")
    fleet.restart_coordinator(signal.SIGKILL)
    fleet.until("online", ["web02", "web04"])
    status, kept = fleet.call("GET", f"/v1/runs/{run['uuid']}?fold=true", wait_s=1)
    assert status == 200 and by_machine(kept, "same_as") == {**dict.fromkeys(NAMES), "web04": "web02"}
    assert by_machine(kept, "stdout") == {"web01": "", "web02": "same\n", "web03": "", "web04": ""}
    status, order = fleet.call("GET", f"/v1/runs/{run['uuid']}/ends?limit=100")
    assert [job["machine"] for job in order["jobs"]][:3] == [job["machine"] for job in ends["jobs"]]
    assert order["ended"] and order["jobs"][3]["machine"] == "web02"
