"""One run on several real machines, over REST."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .many import Fleet, make_fleet

NAMES = ("web01", "web02", "web03")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    yield made
    made.stop()


def test_one_request_is_a_job_on_each_machine(fleet: Fleet) -> None:
    asked = {"target": "web01,web02,web03", "command": {"shell": "echo $CLUSTERSH_JOB"}}
    status, run = fleet.call("POST", "/v1/runs", asked, wait_s=30, key="three")
    assert status == 200 and run["raw"] is False and run["target"] == asked["target"], run
    assert [job["machine"] for job in run["jobs"]] == list(NAMES)
    for job in run["jobs"]:
        assert (job["uuid"], job["status"], job["stdout"]) == (run["uuid"], "completed", f"{run['uuid']}\n")
    assert fleet.call("POST", "/v1/runs", asked, wait_s=30, key="three") == (200, run)
