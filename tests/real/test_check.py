"""``clustersh check`` on several real machines; what docs/check.md shows is what comes."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.probe.servers import http_server

from ..conftest import ROOT
from .many import Fleet, make_fleet
from .programs import eventually

NAMES = ("web01", "web02", "db1")
PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
SHOWN = [
    (example.partition("\n")[0], example.partition("\n")[2].splitlines())
    for block in re.findall(r"```\n(\$ .*?)```", PAGE, re.DOTALL)
    for example in block.removeprefix("$ ").split("\n$ ")
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    for name in ("web01", "db1"):
        (made.agents[name].path.parent / "backup.ok").touch()
    # New machines are part of no "all" until somebody named them.
    assert made.sh("run", ",".join(NAMES), "true").status == 0
    yield made
    made.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http_server() as port:
        yield f"localhost:{port}"


def without_numbers(line: str) -> str:
    """Leave out what differs from time to time: numbers, and how wide a table is for them."""
    return re.sub(r"\b[0-9a-f]{8}\b|[0-9]+(\.[0-9]+)?|[kMGT]?B\b", "N", re.sub(r" +|=+", " ", line))


@pytest.mark.parametrize(("command", "shown"), [each for each in SHOWN if " check " in each[0]])
def test_the_examples_of_the_page(fleet: Fleet, server: str, command: str, shown: list[str]) -> None:
    program, *words = shlex.split(command.replace("localhost:8080/health", f"{server}/status/200"))
    words = [word.replace("localhost:8080/broken", f"{server}/status/503") for word in words]
    assert program == "clustersh"
    came = fleet.sh(*words)
    lines = came.out.replace(f"{server}/status/503", "localhost:8080/broken").splitlines()
    shown_summary = [line for line in shown if re.match(r"[0-9]+ ", line)]
    told = [line for line in shown if line not in shown_summary]
    assert [without_numbers(line) for line in sorted(lines)] == [without_numbers(line) for line in sorted(told)]
    assert came.err.splitlines() == shown_summary
    assert came.status == ("FAILED" in came.out)


def test_a_check_is_a_job_in_the_history(fleet: Fleet, server: str) -> None:
    url = f"http://{server}/status/200"
    assert fleet.sh("check", "web01", "--http", url, "--disk", "/ < 100%").status == 0
    (job,) = fleet.sh("history", "web01", "--limit", "1", "--json").json["jobs"]
    assert (job["command"], job["status"]) == (f"clusteragent probe --http {url} --disk '/ < 100%'", "completed")
    ((command, shown),) = [each for each in SHOWN if " history " in each[0]]
    came = fleet.sh(*shlex.split(command)[1:]).out.replace(url, "http://localhost:8080/health")
    assert [without_numbers(line) for line in came.splitlines()] == [without_numbers(line) for line in shown]
    # As the commands' PATH has no clusteragent, it was the agent's own Python that ran it.
    assert fleet.sh("run", "web01", "command -v clusteragent").status == 1


def test_the_probe_is_not_led_astray_by_what_lies_where_it_runs(fleet: Fleet) -> None:
    for name in ("json.py", "clustersh.py", "socket.py"):
        (fleet.agents["web02"].path.parent / name).write_text("raise SystemExit('mine')")
    assert fleet.sh("check", "web02", "--tcp", fleet.address).status == 0


def test_the_document_tells_each_machine(fleet: Fleet) -> None:
    came = fleet.sh("check", "all", "--tcp", fleet.address, "--command", "test -f backup.ok", "--json")
    assert came.status == 1
    machines = {each["machine"]: each for each in came.json["machines"]}
    assert {name: each["status"] for name, each in machines.items()} == {"web01": "ok", "db1": "ok", "web02": "failed"}
    assert [check["ok"] for check in machines["web02"]["checks"]] == [True, False]
    assert not came.json["ok"] and came.json["uuid"]


def test_an_interrupt_ends_the_checks_on_every_machine(fleet: Fleet) -> None:
    # Each command writes down its pid and stays; the probe's child has a session of its own.
    line = "echo $$ > pid; exec sleep 600"
    pids = [fleet.agents[name].path.parent / "pid" for name in NAMES]
    check = fleet.client.open("clustersh", "check", "all", "--timeout", "9m", "--command", line)
    eventually(lambda: all(pid.exists() and pid.read_text().strip() for pid in pids), what=fleet.logs())
    check.send_signal(signal.SIGINT)
    out, err = check.communicate(timeout=60)
    assert check.returncode == 130, (out, err)
    assert sorted(out.decode().splitlines()) == [f"{name}: cancelled: cancelled" for name in sorted(NAMES)]
    for pid in pids:
        eventually(lambda pid=pid: not _alive(int(pid.read_text())))


def test_a_command_that_stays_is_ended_in_time(fleet: Fleet) -> None:
    line = "echo $$ > stayed; echo staying; sleep 600"
    came = fleet.sh("check", "db1", "--timeout", "1s", "--command", line)
    assert (came.status, came.out) == (1, f"db1: FAILED: command {line}: still ran after 1s: staying\n")
    assert not _alive(int((fleet.agents["db1"].path.parent / "stayed").read_text()))


def test_a_dry_run_asks_nothing_of_anybody(fleet: Fleet) -> None:
    before = fleet.sh("history", "--json").json["jobs"]
    came = fleet.sh("check", "--dry-run", "web[01-02]", "--tcp", "22", "--disk", "/ < 90%")
    assert came.status == 0 and "web[01-02] (2)" in came.out
    assert "clusteragent probe --tcp 22 --disk '/ < 90%'\n" in came.out
    assert fleet.sh("history", "--json").json["jobs"] == before


def test_a_machine_that_went_silent_is_not_waited_for(fleet: Fleet) -> None:
    agent = fleet.agent_processes["web02"]
    agent.send_signal(signal.SIGSTOP)
    try:
        came = fleet.sh("check", "web[01-02]", "--wait", "3s")
    finally:
        agent.send_signal(signal.SIGCONT)
    assert came.status == 123
    first, second = came.out.splitlines()
    assert first == "web01: ok" and second.startswith("web02: unknown: "), came
    assert came.err.startswith("1 ok, 1 unknown (web02)\nhint: still running, clustersh wait ")
    fleet.until("online", ["web02"])


def test_offline_machines_are_told_and_count(fleet: Fleet) -> None:
    fleet.stop_agent("db1")
    try:
        some = fleet.sh("check", "web01,db1")
        assert some.status == 1
        assert sorted(some.out.splitlines())[1] == "web01: ok"
        assert re.fullmatch(r"db1: offline, last seen .+", sorted(some.out.splitlines())[0])
        assert some.err == "1 ok, 1 offline (db1)\n"
        dry = fleet.sh("check", "--dry-run", "web01,db1")
        assert dry.status == 125 and "would not start on db1" in dry.err
        none = fleet.sh("check", "db1")
        assert none.status == 125 and none.out.startswith("db1: offline, last seen ")
    finally:
        fleet.start_agents("db1")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
