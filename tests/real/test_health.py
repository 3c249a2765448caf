"""How machines do, from three real agents to a real terminal."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from clustersh.coordinator.vitals import ASK_S

from ..test_tailscale import peer, status
from .many import Fleet, make_fleet
from .programs import end, eventually
from .terminals import OnTerminal

NAMES = ("db01", "web01", "web02")
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "bin").mkdir()
    program = folder / "bin" / "tailscale"
    # All agents have this host's address: it stands for the one that each would have in the tailnet.
    (folder / "status.json").write_bytes(status(peer("box", "127.0.0.1", Active=True, Relay="fra")))
    program.write_text(f'#!/bin/sh\n[ "$*" = "status --json" ] && exec cat {folder}/status.json\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        made = make_fleet(folder, NAMES)
        yield made
        made.stop()


def machines(fleet: Fleet, *words: str) -> dict[str, dict[str, Any]]:
    answer = fleet.sh("machines", *words, "--json")
    assert answer.status == 0, answer
    return {each["name"]: each for each in answer.json["machines"]}


def test_vitals_come_by_themselves_soon_after_the_link(fleet: Fleet) -> None:
    eventually(lambda: all(each["vitals"] for each in machines(fleet).values()), what="vitals of all")
    for each in machines(fleet).values():
        assert each["vitals_age_s"] < 60
        assert each["latency_ms"] > 0
        vitals = each["vitals"]
        assert vitals["disk_root"] == pytest.approx(psutil.disk_usage("/").percent, abs=5)
        assert vitals["memory"] == pytest.approx(psutil.virtual_memory().percent, abs=25)
        assert vitals["uptime_s"] == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=120)
        assert vitals["jobs"] == 0


def test_the_health_table_of_a_target(fleet: Fleet) -> None:
    shown = fleet.sh("machines", "-l", "web01,db01")
    assert shown.status == 0, shown
    header, _, *rows = ([cell.strip() for cell in line.split("|")] for line in shown.out.splitlines())
    assert sorted(row[0] for row in rows) == ["db01", "web01"]
    for row in rows:
        told = dict(zip(header, row, strict=True))
        assert told["status"].startswith("online") and told["latency"].endswith(" ms")
        assert told["tailscale"] == "online, relayed"
        assert all(told[each].endswith("%") for each in ("cpu", "memory", "disk"))
        assert told["jobs"] == "0" and told["version"]
    wrong = fleet.sh("machines", "-l", "web03")
    assert (wrong.status, wrong.out) == (125, "") and "web03" in wrong.err


def test_groups_and_scores_and_what_is_excluded(fleet: Fleet) -> None:
    assert fleet.sh("groups", "add", "web", "web[01-02]").status == 0
    told = machines(fleet, "-l", "@web", "-x", "web02")
    assert list(told) == ["web01"]
    vitals = told["web01"]["vitals"]
    disk = max(vitals["disk_root"], vitals["disk_home"])
    expected = (0.4 * vitals["cpu"] + 0.3 * vitals["memory"] + 0.3 * disk) / 100
    assert told["web01"]["score"] == pytest.approx(expected, abs=0.001)
    header, _, row = fleet.sh("machines", "-l", "web01").out.splitlines()
    shown = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (header, row)), strict=True))
    assert shown["groups"] == "web" and 0 < float(shown["score"]) <= 1
    assert fleet.sh("machines", "@wbe").status == 125


def test_running_jobs_show(fleet: Fleet) -> None:
    uuid = fleet.sh("run", "web01", "--detach", "sleep 60").out.strip()
    eventually(lambda: machines(fleet, "-l", "web01")["web01"]["vitals"]["jobs"] == 1, what="a job")
    assert machines(fleet, "-l", "web02")["web02"]["vitals"]["jobs"] == 0
    assert fleet.sh("cancel", uuid).status == 0
    eventually(lambda: machines(fleet, "-l", "web01")["web01"]["vitals"]["jobs"] == 0, what="no job")


def test_a_machine_that_does_not_answer_shows_its_last_and_holds_up_nothing_for_long(fleet: Fleet) -> None:
    machines(fleet, "-l")
    frozen = fleet.agent_processes["web02"]
    frozen.send_signal(signal.SIGSTOP)
    try:
        time.sleep(1.1)  # what is younger than a second is not asked for
        began = time.monotonic()
        told = machines(fleet, "-l")
        took = time.monotonic() - began
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert ASK_S <= took < ASK_S + 10
    assert told["web02"]["status"] == "online" and told["web02"]["vitals"]
    assert told["web02"]["vitals_age_s"] >= ASK_S + 1
    assert told["web01"]["vitals_age_s"] < told["web02"]["vitals_age_s"]
    eventually(lambda: machines(fleet, "-l")["web02"]["vitals_age_s"] < 1, what="it answers again")


def test_watching_on_a_terminal(fleet: Fleet) -> None:
    watching = OnTerminal(fleet.client, "machines", "--watch", columns=120, lines=30)
    frame = watching.until("web02 ", "3 machines, 3 online")
    assert watching.seen.startswith(ENTER)
    assert "| tailscale" in frame and "| version" in frame
    drawn = len(watching.frames)
    began = time.monotonic()
    watching.until("web02 ", after=drawn + 1)
    assert time.monotonic() - began > 1.5, "every 2 seconds"
    # Another size is drawn for at once, with what is known.
    watching.resize(60, 6)
    frame = watching.until("... and 2 more")
    lines = frame.splitlines()
    assert len(lines) == 6 and max(map(len, lines)) <= 60 and "version" not in frame
    watching.resize(120, 30)
    watching.until("| version")
    watching.press("\x03")
    assert watching.end() == 0
    assert watching.seen.rstrip().endswith(LEAVE) and watching.seen.count(ENTER) == 1
    assert "\x1b[2J" not in watching.seen, "the screen is never emptied: that flickers"
    assert "\x1b[?25h" in watching.seen.rpartition("\x1b[?25l")[2], "the cursor is back"
    assert "ERROR" not in watching.seen


def test_a_watch_outlives_the_coordinators_restart(fleet: Fleet) -> None:
    watching = OnTerminal(fleet.client, "machines", "--watch", "web01")
    watching.until("1 machine, 1 online")
    end(fleet.coordinator.services[0])
    frame = watching.until("ERROR: ", "web01 ")
    assert "Traceback" not in frame
    fleet.restart_coordinator()
    while "ERROR: " in watching.until("web01 ", after=len(watching.frames)):
        pass
    watching.process.terminate()
    assert watching.end() == 128 + signal.SIGTERM
    assert watching.seen.rstrip().endswith(LEAVE)
    fleet.until("online", NAMES)


def test_watching_into_a_pipe(fleet: Fleet) -> None:
    watching = fleet.client.open("clustersh", "machines", "--watch", "--json")
    assert watching.stdout is not None
    documents = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert all(len(each["machines"]) == 3 for each in documents)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 0
    # One whose reader leaves ends, too.
    closed = fleet.client.open("clustersh", "machines", "--watch")
    assert closed.stdout is not None
    closed.stdout.readline()
    closed.stdout.close()
    assert closed.wait(30) == 141
