"""Placement and dry runs with the real programs: four agents, and policies from a folder of plugins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clustersh.coordinator.placement import Candidate
from clustersh.coordinator.placement.scores import CPU, step

from .many import Fleet, make_fleet
from .programs import drop_in, eventually, plugin_example

NAMES = ("web1", "web2", "web3", "web4")
CLIENTS = 20
BROKEN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from clustersh.coordinator.placement import IPlacement

@implementer(IPlugin, IPlacement)
class Broken:
    name = "broken"

    def choose(self, candidates, pick):
        return 1 / 0

broken = Broken()
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four machines that were used by name and have told how they do."""
    folder = tmp_path_factory.mktemp("placement")
    example = plugin_example("IPlacement")
    found = drop_in(folder, free_memory=example, broken=BROKEN, no_python="this is no Python\n")
    made = make_fleet(folder, NAMES, environ=found)
    try:
        used = made.sh("run", ",".join(NAMES), "true")
        assert used.status == 0, used
        eventually(lambda: all(machine["vitals"] for machine in machines(made).values()), what="vitals")
        yield made
    finally:
        made.stop()


def machines(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {machine["name"]: machine for machine in fleet.sh("machines", "--json").json["machines"]}


def test_the_least_loaded_one_runs_it_and_it_is_said_why(fleet: Fleet) -> None:
    done = fleet.sh("run", "--least-loaded", "all", "echo out; echo err >&2; echo $CLUSTERSH_JOB; exit 7")
    why, err = done.err.splitlines()
    found = re.fullmatch(
        r"Selected (web[1-4]): score [01]\.\d\d; cpu \d+% \(group \d+%\).*, memory \d+% .*, disk .*", why
    )
    assert found, why
    out, uuid = done.out.splitlines()
    assert (done.status, out, err) == (7, "out", "err")
    (job,) = [job for job in fleet.sh("history", "--json").json["jobs"] if job["uuid"] == uuid]
    assert job["machine"] == found[1]


def test_a_command_that_takes_its_time_says_it_once_too(fleet: Fleet) -> None:
    """Over two seconds it is the full way that tells, with a reactor; the quick one has asked before."""
    done = fleet.sh("run", "--least-loaded", "all", "sleep 3; echo done")
    assert (done.status, done.out) == (0, "done\n")
    assert len(re.findall("^Selected web", done.err, re.MULTILINE)) == 1


def test_the_same_key_is_the_same_run_on_the_same_machine(fleet: Fleet) -> None:
    first, second = (fleet.sh("run", "--key", "once", "--least-loaded", "all", "echo $CLUSTERSH_JOB") for _ in range(2))
    assert first.out == second.out != ""
    assert first.err == second.err


def test_pick_is_that_many_machines_in_the_fleets_form(fleet: Fleet) -> None:
    done = fleet.sh("run", "--pick", "2", "all", "echo hello")
    chosen = re.findall("^Selected (web[1-4]): ", done.err, re.MULTILINE)
    assert done.status == 0
    assert len(set(chosen)) == 2
    assert done.out == f"web[{','.join(sorted(name[-1] for name in chosen))}] (2)\nhello\n".replace(
        "1,2", "1-2"
    ).replace("2,3", "2-3").replace("3,4", "3-4")
    assert "2 completed" in done.err


def test_more_than_there_are_is_an_error_that_says_how_many_there_are(fleet: Fleet) -> None:
    done = fleet.sh("run", "--pick", "5", "all", "true")
    assert done.status == 125
    assert "ERROR: 5 machines asked for, but of the target's 4 only 4 can be chosen" in done.err


def test_twenty_clients_at_once_spread_out(fleet: Fleet) -> None:
    """Machines on one host have equal memory and disks. What they say of its processors is 0 to 100 %, as they measured
    at different times; each job placed makes up for one step of that. So nobody gets more than those steps, and two
    for what else differs, above anyone else."""
    (cpus,) = {machine["facts"].get("cpus", 0) for machine in machines(fleet).values()}
    apart = int(CPU / step(Candidate("", "", cpus=cpus)) + 0.5) + 2
    most = (CLIENTS + (len(NAMES) - 1) * apart) // len(NAMES)
    asked = {"target": "all", "command": {"shell": "sleep 600"}, "placement": {"raw": True}}
    with ThreadPoolExecutor(CLIENTS) as clients:
        calls = [clients.submit(fleet.call, "POST", "/v1/runs", asked, key=f"client-{n}") for n in range(CLIENTS)]
    runs = [call.result()[1] for call in calls]
    uuids = [run["uuid"] for run in runs]
    try:
        counted = Counter(job["machine"] for run in runs for job in run["jobs"])
        assert sum(counted.values()) == CLIENTS
        assert max(counted.values()) <= most, counted
        assert max(counted.values()) - min(counted[name] for name in NAMES) <= apart, counted
    finally:
        for uuid in uuids:
            fleet.call("POST", f"/v1/runs/{uuid}/cancel", {})


def test_the_documented_plugin_chooses(fleet: Fleet) -> None:
    done = fleet.sh("run", "--placement", "free-memory", "all", "echo ran")
    assert (done.status, done.out) == (0, "ran\n"), done
    assert re.fullmatch(r"Selected web[1-4]: memory \d+% in use\n", done.err)


def test_a_plugin_that_fails_is_named_and_nothing_else_suffers(fleet: Fleet) -> None:
    done = fleet.sh("run", "--placement", "broken", "all", "true")
    assert done.status == 125
    error, hint = done.err.splitlines()
    assert error == "ERROR: the placement policy 'broken' failed: ZeroDivisionError: division by zero"
    assert hint.startswith("hint: ")
    unknown = fleet.sh("run", "--placement", "mine", "all", "true")
    assert unknown.status == 125
    assert "no placement policy 'mine'" in unknown.err
    assert "broken, free-memory, least-loaded" in unknown.err
    assert "no_python" in fleet.coordinator.log.read_text()
    assert fleet.sh("run", "web1", "true").status == 0


# -- dry runs


def records(fleet: Fleet) -> int:
    return sum(
        path.read_bytes().count(b"\n") for path in (fleet.coordinator.path / "coordinator" / "ledger").glob("*.jsonl")
    )


def blobs(fleet: Fleet) -> set[Path]:
    return {path for path in (fleet.coordinator.path / "coordinator" / "blobs").rglob("*") if path.is_file()}


def test_a_dry_run_shows_what_would_run_and_touches_nothing(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "some file").write_text("never sent before\n")
    before = records(fleet), blobs(fleet)
    done = fleet.sh(
        *("run", "--dry-run", "--rolling", "3", "--canary", "1", "--env", "WORD=secret", "--timeout", "90s"),
        *("--file", str(tmp_path / "tree"), "all", "touch", str(tmp_path / "ran")),
    )
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[2:4] == ["1     | web1         | online", "2     | web[2-4] (3) | online"]
    assert lines[4:] == [
        f"shell line: touch {tmp_path / 'ran'}",
        "in: a temporary directory that holds the files",
        "with the variables: WORD",
        "with the files: tree/some file (18 B)",
        "ends after: 90 seconds",
        "policy: passes",
        "dry run: nothing was done",
    ]
    assert not (tmp_path / "ran").exists()
    assert (records(fleet), blobs(fleet)) == before


def test_a_dry_run_says_which_machines_are_offline_and_fails(fleet: Fleet) -> None:
    fleet.stop_agent("web4")
    try:
        done = fleet.sh("run", "--dry-run", "--json", "web3,web4", "--", "printf", "%s", "a b")
        assert done.status == 125
        assert done.err.startswith("ERROR: it would not start on web4: offline\nhint: ")
        plan = done.json
        assert [(machine["name"], machine["status"]) for machine in plan["machines"]] == [
            ("web3", "online"),
            ("web4", "offline"),
        ]
        assert (plan["would_start"], plan["command"]) == (False, {"argv": ["printf", "%s", "a b"]})
        skipping = fleet.sh("run", "--dry-run", "--skip-offline", "web3,web4", "true")
        assert skipping.status == 0
        assert "leaves out: web4: offline" in skipping.out
        assert fleet.sh("run", "--pick", "4", "all", "true").status == 125
    finally:
        fleet.start_agents("web4")
        eventually(lambda: machines(fleet)["web4"]["vitals"], what="vitals")


def test_a_dry_run_is_refused_as_a_run_would_be(fleet: Fleet) -> None:
    dry, real = (fleet.sh("run", *option, "wbe1", "true") for option in (("--dry-run",), ()))
    assert (dry.status, dry.out, dry.err) == (real.status, real.out, real.err)
    assert dry.status == 125


def test_a_dry_cancel_ends_nothing(fleet: Fleet) -> None:
    asked = {"target": "web1,web2", "command": {"shell": "sleep 600"}}
    _, run = fleet.call("POST", "/v1/runs", asked, key="to-be-cancelled")
    uuid = run["uuid"]
    dry = fleet.sh("cancel", "--dry-run", uuid)
    assert (dry.status, dry.out) == (0, f"This would cancel {uuid} on web[1-2] (2); dry run: nothing was done.\n")
    one = fleet.sh("cancel", "--dry-run", "--json", "web1", uuid)
    assert one.json == {"uuid": uuid, "would_cancel": ["web1"], "ended": []}
    fleet.call("POST", f"/v1/jobs/web1/{uuid}/cancel", {})
    eventually(lambda: fleet.call("GET", f"/v1/jobs/web1/{uuid}")[1]["status"] == "cancelled")
    rest = fleet.sh("cancel", "--dry-run", "--json", "web[1-2]", uuid)
    assert rest.json == {"uuid": uuid, "would_cancel": ["web2"], "ended": ["web1"]}
    fleet.call("POST", f"/v1/runs/{uuid}/cancel", {})
    assert fleet.call("GET", f"/v1/runs/{uuid}", wait_s=30)[0] == 200
    none = fleet.sh("cancel", "--dry-run", uuid)
    assert none.status == 125
    assert none.err.startswith("ERROR: nothing to cancel: the command had ended on web[1-2]\nhint: ")
