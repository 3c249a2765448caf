"""Runs that go through real machines in batches, over REST, and through kill -9 of the coordinator."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clustersh.frontend.blocking import connect

from .many import Fleet, make_fleet
from .programs import PATIENCE_S, end, eventually

NAMES = ("web01", "web02", "web03", "web04")
NEVER = "not-started"


@dataclass
class Paced:
    """A run, whose command counts how often it runs on each machine, and ends when it is let go."""

    fleet: Fleet
    folder: Path
    tag: str
    uuid: str = ""

    def shell(self, then: str) -> str:
        return f'echo once >> "$HOME/{self.tag}"; until [ -e {self.folder}/{self.tag} ]; do sleep 0.02; done; {then}'

    def ask(self, then: str = "true", env: dict[str, str] | None = None, **pace: Any) -> None:
        """Ask for the run on all machines."""
        status, run = self.fleet.call("POST", "/v1/runs", self.body(then, env, **pace), key=self.tag)
        assert status == 202, run
        self.uuid = run["uuid"]

    def body(self, then: str, env: dict[str, str] | None = None, **pace: Any) -> dict[str, Any]:
        command = {"shell": self.shell(then)}
        return {"target": ",".join(NAMES), "command": command, "env": env or {}, "pace": pace}

    def go(self) -> None:
        """Let the command end, wherever it runs."""
        (self.folder / self.tag).touch()

    def times(self) -> dict[str, int]:
        """Return how often it ran, on each machine where it did."""
        files = {name: agent.path.parent / self.tag for name, agent in self.fleet.agents.items()}
        return {name: len(file.read_text().split()) for name, file in files.items() if file.exists()}

    def until_begun(self, *names: str) -> None:
        eventually(lambda: set(names) <= set(self.times()), what=f"{names}\n{self.fleet.logs()}")

    def view(self, wait_s: float = 0) -> dict[str, Any]:
        status, run = self.fleet.call("GET", f"/v1/runs/{self.uuid}", wait_s=wait_s)
        assert status in (200, 202), run
        return run

    def until_running(self, *names: str) -> None:
        """Wait until the coordinator knows that it runs there, and nowhere else."""
        eventually(lambda: [name for name, state in self.states().items() if state == "running"] == list(names))

    def states(self) -> dict[str, str]:
        return {job["machine"]: job["status"] for job in self.view()["jobs"]}

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the ledger's records of that kind about the run."""
        folder = self.fleet.coordinator.path / "coordinator" / "ledger"
        lines = b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl"))).splitlines()
        records = (json.loads(line) for line in lines)
        return [record for record in records if record["is"] == kind and record.get("uuid") == self.uuid]

    def over(self) -> dict[str, Any]:
        """Wait until the run has ended, and return it."""

        def ended() -> dict[str, Any] | None:
            run = self.view(wait_s=5)
            return run if all(job["finished"] for job in run["jobs"]) else None

        found = eventually(ended, 60, f"the end of {self.uuid}")
        assert found is not None
        return found


def states_of(run: dict[str, Any]) -> list[str]:
    return [job["status"] for job in run["jobs"]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("paced")
    made = make_fleet(folder, NAMES)
    try:
        (folder / "faults").mkdir()
        made.coordinator.environ["CLUSTERSH_FAULTS"] = str(folder / "faults")
        end(coordinator_of(made))
        restart(made)
        yield made
    finally:
        made.stop()


def coordinator_of(fleet: Fleet) -> Any:
    return [each for each in fleet.coordinator.services if "--listen" in each.args][-1]


def restart(fleet: Fleet) -> None:
    fleet.restart_coordinator()
    fleet.until("online", NAMES)


numbers = itertools.count(1)


@pytest.fixture
def paced(fleet: Fleet, tmp_path: Path) -> Iterator[Paced]:
    work = Paced(fleet, tmp_path, f"paced-{next(numbers)}")
    yield work
    work.go()
    assert "Traceback" not in fleet.logs()


def kill(fleet: Fleet) -> None:
    end(coordinator_of(fleet), signal.SIGKILL)


def arm(fleet: Fleet, point: str) -> None:
    (Path(fleet.coordinator.environ["CLUSTERSH_FAULTS"]) / point).touch()


def until_dead(fleet: Fleet) -> None:
    assert coordinator_of(fleet).wait(PATIENCE_S) == -signal.SIGKILL, fleet.logs()


def test_one_failing_machine_stops_it_after_its_batch(paced: Paced) -> None:
    paced.ask('case "$HOME" in *web02) exit 3;; esac', rolling="2")
    paced.until_begun("web01", "web02")
    paced.go()
    run = paced.over()
    reason = "stopped after 1 of 2 failed: web02"
    assert states_of(run) == ["completed", "failed", NEVER, NEVER]
    assert [job["reason"] for job in run["jobs"]] == [None, None, reason, reason]
    assert run["stopped"] == reason
    assert paced.times() == {"web01": 1, "web02": 1}


def test_a_failing_canary_leaves_the_others_alone(paced: Paced) -> None:
    paced.go()
    paced.ask("exit 1", canary=1)
    run = paced.over()
    assert states_of(run) == ["failed", NEVER, NEVER, NEVER]
    assert (run["stopped"], paced.times()) == ("stopped after 1 of 1 failed: web01", {"web01": 1})


def test_it_goes_on_while_no_more_have_failed_than_may(paced: Paced) -> None:
    paced.go()
    paced.ask('case "$HOME" in *web0[123]) exit 3;; esac', rolling="1", max_failures="50%")
    run = paced.over()
    assert states_of(run) == ["failed", "failed", "failed", NEVER]
    assert run["stopped"] == "stopped after 3 of 3 failed: web01, web02, web03"


def test_an_offline_machine_has_failed(fleet: Fleet, paced: Paced) -> None:
    paced.go()
    fleet.stop_agent("web02")
    try:
        paced.ask("true", rolling="25%")
        run = paced.over()
    finally:
        fleet.start_agents("web02")
    assert states_of(run) == ["completed", NEVER, NEVER, NEVER]
    assert run["jobs"][1]["reason"].startswith("web02 is offline (last seen ")
    assert run["stopped"] == "stopped after 1 of 2 failed: web02"


def test_it_goes_on_without_its_client(fleet: Fleet, paced: Paced) -> None:
    connection = connect(fleet.client.path, PATIENCE_S)
    assert connection is not None
    headers = {"Content-Type": "application/json", "Prefer": "wait=60", "Idempotency-Key": paced.tag}
    connection.request("POST", "/v1/runs", json.dumps(paced.body("true", rolling="1")), headers)
    paced.until_begun("web01")
    connection.sock.close()
    connection.close()
    paced.go()
    paced.until_begun(*NAMES)
    _, run = fleet.call("POST", "/v1/runs", paced.body("true", rolling="1"), key=paced.tag)
    paced.uuid = run["uuid"]
    assert states_of(paced.over()) == ["completed"] * 4
    assert paced.times() == dict.fromkeys(NAMES, 1)


def test_cancel_ends_what_runs_and_begins_no_more(fleet: Fleet, paced: Paced) -> None:
    paced.ask(rolling="2")
    paced.until_running("web01", "web02")
    status, answer = fleet.call("POST", f"/v1/runs/{paced.uuid}/cancel")
    assert (status, answer["cancelled"]) == (200, list(NAMES))
    run = paced.over()
    assert states_of(run) == ["cancelled"] * 4
    assert [job["started"] is not None for job in run["jobs"]] == [True, True, False, False]
    assert (run["stopped"], paced.times()) == (None, {"web01": 1, "web02": 1})


def test_ctrl_c_begins_no_more_and_cancels_what_runs(fleet: Fleet, paced: Paced) -> None:
    words = ("--rolling", "2", ",".join(NAMES), paced.shell("true"))
    waiting = fleet.client.open("clustersh", "run", *words)
    paced.until_begun("web01", "web02")
    _, page = fleet.call("GET", "/v1/jobs?limit=1")
    paced.uuid = page["jobs"][0]["uuid"]
    paced.until_running("web01", "web02")
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=PATIENCE_S)
    assert states_of(paced.over()) == ["cancelled"] * 4, (out, err)
    assert paced.times() == {"web01": 1, "web02": 1}
    assert waiting.returncode == 130 and b"4 cancelled (web[01-04])" in err, (waiting.returncode, out, err)


def test_the_command_line_says_why_it_went_no_further(fleet: Fleet, paced: Paced) -> None:
    paced.go()
    answer = fleet.sh("run", "--canary", "1", ",".join(NAMES), paced.shell("echo oh; exit 3"))
    assert answer.status == 1, answer
    assert "web01" in answer.out and "oh" in answer.out
    assert "1 failed" in answer.err and "3 not started" in answer.err, answer
    assert "stopped after 1 of 1 failed: web01" in answer.err
    assert paced.times() == {"web01": 1}


def test_a_pace_without_sense_is_a_bad_request(fleet: Fleet, paced: Paced) -> None:
    for pace, said in (
        ({"max_failures": "1"}, "can't be stopped: say rolling or canary"),
        ({"rolling": "0%"}, "a batch is at least 1 machine"),
    ):
        status, problem = fleet.call("POST", "/v1/runs", paced.body("true", **pace), key=paced.tag)
        assert (status, problem["type"]) == (400, "bad-request")
        assert said in problem["detail"]
    assert paced.times() == {}


# -- kill -9


def test_a_coordinator_killed_in_mid_run_goes_on_with_the_next_batches(fleet: Fleet, paced: Paced) -> None:
    paced.ask(rolling="1")
    paced.until_running("web01")
    kill(fleet)
    restart(fleet)
    paced.until_running("web01")
    paced.go()
    assert states_of(paced.over()) == ["completed"] * 4
    assert paced.times() == dict.fromkeys(NAMES, 1)


def test_what_ran_while_no_coordinator_was_there_counts(fleet: Fleet, paced: Paced) -> None:
    paced.ask("exit 1", rolling="2")
    paced.until_running("web01", "web02")
    kill(fleet)
    paced.go()
    restart(fleet)
    run = paced.over()
    assert states_of(run) == ["failed", "failed", NEVER, NEVER]
    assert run["stopped"] == "stopped after 2 of 2 failed: web01, web02"
    assert paced.times() == {"web01": 1, "web02": 1}


def test_without_its_environment_values_it_goes_no_further(fleet: Fleet, paced: Paced) -> None:
    paced.ask('[ "$COLOUR" = green ]', {"COLOUR": "green"}, rolling="2")
    paced.until_running("web01", "web02")
    kill(fleet)
    restart(fleet)
    paced.go()
    run = paced.over()
    reason = "the coordinator was restarted, and keeps no environment values"
    assert states_of(run) == ["completed", "completed", NEVER, NEVER]
    assert (run["jobs"][2]["reason"], run["stopped"]) == (reason, reason)
    assert paced.times() == {"web01": 1, "web02": 1}


@pytest.mark.parametrize("point", ["batch-chosen", "batch-recorded", "run-dispatched", "batch-sent"])
def test_a_coordinator_killed_around_a_batch(fleet: Fleet, paced: Paced, point: str) -> None:
    paced.ask(rolling="2", max_failures="100%")
    paced.until_running("web01", "web02")
    arm(fleet, point)
    paced.go()
    until_dead(fleet)
    restart(fleet)
    run = paced.over()
    states, times = states_of(run), paced.times()
    assert states[:2] == ["completed", "completed"]
    for name, state in zip(NAMES, states, strict=True):
        assert (state, times.get(name, 0)) in (("completed", 1), (NEVER, 0)), run
    if point == "batch-chosen":
        assert times == dict.fromkeys(NAMES, 1), "a batch that was never recorded is sent now"
    elif point == "batch-recorded":
        assert times == dict.fromkeys(NAMES[:2], 1), "a batch that was recorded is never sent again"
    begun = [machine_id for batch in paced.records("batch") for machine_id in batch["machine_ids"]]
    assert len(begun) == len(set(begun)) == 4
    assert (run["stopped"], paced.records("stopped")) == (None, [])


def test_a_coordinator_killed_before_the_first_batch_begins_it_later(fleet: Fleet, paced: Paced) -> None:
    paced.go()
    arm(fleet, "batch-chosen")
    with pytest.raises(OSError):
        fleet.call("POST", "/v1/runs", paced.body("true", canary=1), key=paced.tag)
    until_dead(fleet)
    restart(fleet)
    _, run = fleet.call("POST", "/v1/runs", paced.body("true", canary=1), key=paced.tag)
    paced.uuid = run["uuid"]
    assert states_of(paced.over()) == ["completed"] * 4
    assert paced.times() == dict.fromkeys(NAMES, 1)


def test_a_coordinator_killed_as_it_stops_a_run(fleet: Fleet, paced: Paced) -> None:
    paced.ask("exit 1", canary=1)
    paced.until_running("web01")
    arm(fleet, "stop-recorded")
    paced.go()
    until_dead(fleet)
    restart(fleet)
    run = paced.over()
    assert states_of(run) == ["failed", NEVER, NEVER, NEVER]
    reason = "stopped after 1 of 1 failed: web01"
    assert ({job["reason"] for job in run["jobs"][1:]}, run["stopped"]) == ({reason}, reason)
    assert len(paced.records("stopped")) == 1, "what was decided is not decided again"
    assert paced.times() == {"web01": 1}


def test_a_coordinator_killed_as_a_run_is_cancelled(fleet: Fleet, paced: Paced) -> None:
    paced.ask(rolling="2")
    paced.until_running("web01", "web02")
    arm(fleet, "cancel-recorded")
    with pytest.raises(OSError):
        fleet.call("POST", f"/v1/runs/{paced.uuid}/cancel")
    until_dead(fleet)
    restart(fleet)
    assert states_of(paced.over()) == ["cancelled"] * 4
    assert paced.times() == {"web01": 1, "web02": 1}
