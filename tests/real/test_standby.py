"""The standby's life: who leaves it behind, what it holds, when it ends, and who goes around it."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .clusters import make_cluster
from .programs import BIN, Cluster
from .standbys import Standby, runs, standbys_of


@pytest.fixture
def fresh(standing: Cluster) -> Cluster:
    """The cluster with no standby yet."""
    assert standing.sh("standby", "stop").status == 0
    assert standing.sh("standby").out == "no standby runs\n"
    return standing


def test_commands_go_through_it_as_they_would_without(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    answer = standing.sh("run", "ws1", "echo out; echo err >&2; exit 3")
    assert (answer.status, answer.out, answer.err) == (3, "out\n", "err\n")
    assert standing.sh("machines").out == standing.sh("machines", environ={"CLUSTERSH_STANDBY": "off"}).out
    refused = standing.sh("run", "wss1", "true")
    assert (refused.status, refused.out) == (125, "")
    assert refused.err == "ERROR: no machine is called 'wss1'\nhint: did you mean ws1?\n"
    assert standing.sh("nonsense").err.startswith("ERROR: clustersh has no command 'nonsense'\n")
    assert standby.calls == before + 4


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "help",
            "run --help",
            "whoami",
            "machines",
            "machines ws*",
            "targets all,!ws1",
            "targets 'w[a-z]1'",
        ),
        *("groups", "groups --json", "label", "label ws1 a:b --dry-run", "policy", "policy test 'rm -rf /'", "history"),
        *(
            "run 'ws*' 'echo x; exit 3'",
            "run -o each all 'echo x'",
            "run --dry-run ws* 'rm -rf /'",
            "run ws1 'rm -rf /'",
        ),
        *(
            "run --follow all 'echo x'",
            "run --wait 9s --combined ws1 'echo x; echo y >&2'",
            "wait 00000000",
            "cat nonsense",
        ),
    ],
)
def test_every_command_does_the_same_by_way_of_it(standing: Cluster, standby: Standby, line: str) -> None:
    before = standby.calls
    words = shlex.split(line)
    ours, theirs = (standing.sh(*words, environ={"CLUSTERSH_STANDBY": each}) for each in ("on", "off"))
    assert (ours.status, ours.out, ours.err) == (theirs.status, theirs.out, theirs.err)
    assert standby.calls == before + 1


def test_checks_go_through_it(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    checked = standing.sh("check", "all", "--json")
    assert checked.status == 0 and checked.json["machines"], checked
    assert standby.calls == before + 1


def test_the_first_command_leaves_it_and_waits_for_nothing(fresh: Cluster) -> None:
    # A standby that held this pipe would keep communicate() from returning for as long as it lives: ten minutes.
    answer = fresh.sh("run", "ws1", "echo first", seconds=20)
    assert answer.out == "first\n"
    assert Standby(fresh).runs()


def test_a_shells_substitution_returns_at_once_too(fresh: Cluster) -> None:
    script = f'exec 7>&1; got=$({BIN}/clustersh run ws1 "echo first" 2>&1); echo "<$got>"'
    done = subprocess.run(
        ["bash", "-c", script], env=fresh.client.environment(), capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "<first>\n"
    assert Standby(fresh).runs()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_it_holds_nothing_of_its_first_caller(fresh: Cluster, tmp_path: Path) -> None:
    secret = "a secret that is nobody's business"
    held = (tmp_path / "held").open("w")
    read, write = os.pipe()
    with held:
        subprocess.run(
            [BIN / "clustersh", "run", "--env", "SECRET", "ws1", "true"],
            env=fresh.client.environment({"SECRET": secret, "TERM": "xterm"}),
            cwd=tmp_path,
            pass_fds=(held.fileno(), write),
            check=True,
        )
    os.close(write)
    pid = Standby(fresh).pid
    assert os.read(read, 1) == b"", "somebody still has that pipe open"
    os.close(read)
    open_files = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert str(tmp_path / "held") not in open_files
    assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert secret.encode() not in environ and b"TERM=" not in environ and b"SHELL=" not in environ
    assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    _state, parent, group, session, terminal = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:5]
    assert (int(group), int(session), int(terminal)) == (pid, pid, 0)
    assert int(parent) != os.getpid()


def test_twenty_first_callers_leave_one(fresh: Cluster) -> None:
    callers = [fresh.client.open("clustersh", "run", "ws1", f"echo {number}") for number in range(20)]
    answers = [caller.communicate(timeout=60)[0] for caller in callers]
    assert answers == [f"{number}\n".encode() for number in range(20)]
    pid = Standby(fresh).pid
    assert standbys_of(fresh) == [pid]


@pytest.mark.parametrize("environ", [{"CLUSTERSH_STANDBY": "off"}, {"CI": "true"}, {"CLUSTERSH_DEBUG": "1"}])
def test_who_wants_none_goes_around_it_and_leaves_none(fresh: Cluster, environ: dict[str, str]) -> None:
    assert fresh.sh("run", "ws1", "echo x", environ=environ).out == "x\n"
    assert not any(path.is_socket() for path in (fresh.client.runtime / "clustersh").iterdir())
    standby = Standby(fresh)
    before = standby.calls
    assert fresh.sh("run", "ws1", "echo x", environ=environ).out == "x\n"
    assert standby.calls == before


def test_it_is_shown_and_stopped(standing: Cluster, standby: Standby) -> None:
    shown = standing.sh("standby")
    assert shown.out.startswith(f"process {standby.pid}, for ") and "of memory\nends after 10 minutes" in shown.out
    document = standing.sh("standby", "--json").json
    assert document["running"] and document["memory_bytes"] > 10 << 20 and document["state"]["version"]
    would = standing.sh("standby", "stop", "--dry-run")
    assert (would.status, would.out) == (0, f"Would stop process {standby.pid}; dry run: nothing was done.\n")
    assert standing.sh("standby", "--dry-run").status == 125 and standby.runs()
    assert standing.sh("standby", "stop").out == f"Stopped {standby.pid}.\n"
    assert not standby.runs()
    assert standing.sh("standby", "stop", "--dry-run").out == "Would stop nothing; dry run: nothing was done.\n"
    assert standing.sh("standby", "--json").json == {"running": False, "state": None, "memory_bytes": None}
    assert standing.sh("standby", "stop", "--json").json == {"stopped": []}


def test_a_stop_lets_commands_end(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    running = standing.client.open("clustersh", "run", "--stdin", "ws1", "cat", stdin=subprocess.PIPE)
    while standby.calls < 1 or standing.sh("standby", "--json").json["state"]["running"] < 1:
        time.sleep(0.01)
    would = standing.sh("standby", "stop", "--dry-run")
    assert would.out.startswith(f"Would stop process {standby.pid}, after one command that runs; dry run"), would
    document = standing.sh("standby", "stop", "--dry-run", "--json").json
    assert document == {"would_stop": [{"pid": standby.pid, "running": 1}], "dry_run": True}
    assert standing.sh("standby", "stop").out == (
        f"Process {standby.pid} takes no more commands; it ends after one command that runs.\n"
    )
    assert standing.sh("standby").out == "no standby runs\n"
    assert running.communicate(b"whole", timeout=30) == (b"whole", b"")
    standby.until_ended()


def test_it_ends_after_a_time_without_a_command(standing: Cluster, standby: Standby) -> None:
    config = standing.client.path / "config.toml"
    config.write_text('[client]\nstandby = "1s"\n')
    try:
        assert standing.sh("whoami").status == 0
        standby.until_ended()  # it read another configuration
        brief = Standby(standing)
        brief.until_ended()
    finally:
        config.unlink()


def test_a_configuration_that_says_off_ends_it_and_leaves_none(standing: Cluster, standby: Standby) -> None:
    config = standing.client.path / "config.toml"
    config.write_text('[client]\nstandby = "off"\n')
    try:
        assert standing.sh("run", "ws1", "echo x").out == "x\n"
        standby.until_ended()
        assert standing.sh("run", "ws1", "echo x").out == "x\n"
        assert standing.sh("standby").out == "no standby runs\n"
    finally:
        config.unlink()


def test_a_login_anew_and_a_revocation_end_it(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path, CLUSTERSH_STANDBY="on")
    try:
        standby = Standby(cluster)
        asked = cluster.sh("login", "--again", f"http://{cluster.address}", "--name", "new@mba", "--no-wait")
        code = asked.out.split("clusterd approve ")[1].split()[0]
        assert cluster.coordinator.run("clusterd", "approve", code).status == 0
        assert cluster.sh("whoami").out.startswith("new@mba ")
        standby.until_ended()
        standby.again()
        assert cluster.sh("whoami").out.startswith("new@mba ")
        assert cluster.coordinator.run("clusterd", "revoke", "new@mba").status == 0
        refused = cluster.sh("run", "ws1", "true")
        without = cluster.sh("run", "ws1", "true", environ={"CLUSTERSH_STANDBY": "off"})
        assert (refused.status, refused.err) == (without.status, without.err)
        assert refused.status == 125
    finally:
        cluster.stop()


AS_A_PART = """\
import sys, types
if "clustersh.frontend.standby.main" in sys.orig_argv:
    part = sys.modules["clustersh.part"] = types.ModuleType("clustersh.part")
    part.__file__ = {!r}
"""
"""Python imports it at its start: a standby takes a file for one of the program's, which no other standby has read."""


def test_an_upgrade_ends_it(standing: Cluster, tmp_path: Path) -> None:
    part = tmp_path / "part.py"
    part.write_text("")
    (tmp_path / "sitecustomize.py").write_text(AS_A_PART.format(str(part)))
    standing.sh("standby", "stop")
    standing.client.environ["PYTHONPATH"] = str(tmp_path)
    try:
        standby = Standby(standing)
        part.write_text("")  # as it was: when it was written says so
        assert standing.sh("run", "ws1", "echo x").out == "x\n"
        standby.until_ended()
    finally:
        del standing.client.environ["PYTHONPATH"]
        standing.sh("standby", "stop")


def test_each_state_directory_has_its_own(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    before = standby.calls
    other = standing.sh("run", "ws1", "true", environ={"CLUSTERSH_HOME": str(tmp_path)})
    assert (other.status, other.err.splitlines()[0]) == (125, "ERROR: not logged in")
    assert standby.calls == before


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_callers_in_another_mount_namespace_go_around_it(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    words = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*words, BIN / "clustersh", "run", "ws1", "echo elsewhere"],
        env=standing.client.environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"elsewhere\n"
    assert standby.calls == before
    standing.sh("standby", "stop")  # theirs too: it is of this state


def test_only_its_user_gets_at_its_files(standby: Standby) -> None:
    assert stat.S_IMODE(standby.folder.stat().st_mode) == 0o700
    for path in standby.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert runs(standby.pid)


def test_times_are_the_callers(standing: Cluster, standby: Standby) -> None:
    def first_time(zone: str) -> str:
        return standing.sh("history", "--limit", "1", environ={"TZ": zone}).out.splitlines()[2].split("|")[1].strip()

    standing.sh("run", "ws1", "true")
    for _ in range(2):  # the second time by a standby of that zone, if there is one by then
        assert first_time("UTC-5")[11:13] != first_time("UTC+3")[11:13]
    standing.sh("standby", "stop")
