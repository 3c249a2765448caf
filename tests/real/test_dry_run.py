"""``--dry-run`` of what changes something, by the real programs: it says what would be done, and nothing is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from .programs import Cluster, Home, make_home
from .test_up import free_port

ABSENT = "NOT-THERE"


def state(*folders: Path) -> dict[str, str]:
    """Return the content of every file that stands for a decision: services' logs and notes of themselves are none."""
    passing = {"log", "run.json", "status.json", "lock", "index.sqlite", "index.sqlite-shm", "index.sqlite-wal"}
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name not in passing]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pending_code(cluster: Cluster, folder: Path, name: str) -> tuple[Home, str]:
    newcomer = make_home(folder, "newcomer")
    asked = newcomer.sh("login", cluster.address, "--name", name, "--no-wait", "--json")
    assert asked.status == 0, asked
    return newcomer, asked.json["code"]


ADMIN = [
    (("revoke", "joshua@mba"), "Would revoke joshua@mba; dry run: nothing was done.\n", {"name": "joshua@mba"}),
    (("forget", "ws1"), "Would forget ws1; dry run: nothing was done.\n", {"name": "ws1"}),
    (("accept", "ws1"), "Would accept ws1; dry run: nothing was done.\n", {"name": "ws1"}),
    (
        ("token", "create", "--uses", "20", "--ttl", "1h"),
        "Would make a token that lets 20 machines in, for 1 hour; dry run: nothing was done.\n",
        {"uses": 20, "ttl_s": 3600.0},
    ),
    (
        ("invite", "--token", "2h"),
        "Would make a token that lets 1 machine in, for 2 hours; dry run: nothing was done.\n",
        {"uses": 1, "ttl_s": 7200.0},
    ),
    (
        ("wheelhouse", "fill", "--platform", "win_amd64", "--python", "3.13"),
        "Would fetch the wheels for win_amd64 (Python 3.13); dry run: nothing was done.\n",
        {"would_fill": [{"platform": "win_amd64", "python": "3.13"}]},
    ),
]


@pytest.mark.parametrize(("words", "text", "document"), ADMIN, ids=[words[0] for words, _, _ in ADMIN])
def test_an_admin_is_told_what_would_be_done(
    cluster: Cluster, words: tuple[str, ...], text: str, document: dict[str, Any]
) -> None:
    before = state(cluster.coordinator.path)
    told = cluster.coordinator.run("clusterd", *words, "--dry-run")
    assert (told.status, told.out, told.err) == (0, text, "")
    as_json = cluster.coordinator.run("clusterd", *words, "--dry-run", "--json")
    assert as_json.json == {**document, "dry_run": True} and as_json.status == 0
    assert state(cluster.coordinator.path) == before
    assert cluster.sh("run", "ws1", "echo there").out == "there\n"


@pytest.mark.parametrize(
    "words",
    [("revoke", ABSENT), ("forget", ABSENT), ("accept", ABSENT), ("token", "revoke", "abc"), ("approve", "0badc0de")],
    ids=lambda words: words[0],
)
def test_what_would_fail_fails(cluster: Cluster, words: tuple[str, ...]) -> None:
    told = cluster.coordinator.run("clusterd", *words, "--dry-run")
    really = cluster.coordinator.run("clusterd", *words)
    assert (told.status, told.out, told.err) == (really.status, really.out, really.err)
    assert told.status == 125 and told.err.startswith("ERROR: ")
    document = cluster.coordinator.run("clusterd", *words, "--dry-run", "--json").json
    assert document["error"]["started"] is False


def test_a_token_is_not_revoked_by_a_dry_run(cluster: Cluster) -> None:
    made = cluster.coordinator.run("clusterd", "token", "create", "--json").json["id"]
    told = cluster.coordinator.run("clusterd", "token", "revoke", made, "--dry-run")
    assert told.out == f"Would revoke the token {made}; dry run: nothing was done.\n"
    tokens = cluster.coordinator.run("clusterd", "token", "list", "--json").json["tokens"]
    assert [token["status"] for token in tokens if token["id"] == made] == ["usable"]


def test_a_code_is_told_of_and_lets_nobody_in(cluster: Cluster, tmp_path: Path) -> None:
    newcomer, code = pending_code(cluster, tmp_path, "new@laptop")
    told = cluster.coordinator.run("clusterd", "approve", code, "--dry-run")
    assert told.out.startswith("Would allow new@laptop (frontend) from 127.0.0.1.\nkey:   ")
    assert told.out.endswith("\ndry run: nothing was done\n")
    document = cluster.coordinator.run("clusterd", "approve", "--ai", code, "--dry-run", "--json").json
    assert (document["name"], document["ai"], document["dry_run"]) == ("new@laptop", True, True)
    waits = newcomer.sh("whoami")
    assert waits.status == 125 and "not approved yet" in waits.err
    assert cluster.coordinator.run("clusterd", "approve", code).status == 0
    whoami = newcomer.sh("whoami", "--json").json
    assert whoami["name"] == "new@laptop"
    known = cluster.coordinator.run("clusterd", "clients", "--json").json["clients"]
    assert [client["ai"] for client in known if client["name"] == "new@laptop"] == [False]


def test_a_login_is_only_looked_into(cluster: Cluster, tmp_path: Path) -> None:
    fresh = make_home(tmp_path, "fresh")
    told = fresh.sh("login", cluster.address, "--name", "me@here", "--dry-run")
    would = f"Would ask the coordinator at {cluster.address} to let me@here in; dry run: nothing was done.\n"
    assert (told.status, told.out, told.err) == (0, would.replace(cluster.address, f"http://{cluster.address}"), "")
    document = fresh.sh("login", cluster.address, "--name", "me@here", "--dry-run", "--json").json
    assert document == {"name": "me@here", "coordinator": cluster.address, "dry_run": True}
    assert not state(fresh.path)
    pending = cluster.coordinator.run("clusterd", "pending", "--json").json["pending"]
    assert "me@here" not in [each["name"] for each in pending]


def test_a_login_that_would_fail_fails(cluster: Cluster, tmp_path: Path) -> None:
    fresh = make_home(tmp_path, "fresh")
    nobody = f"127.0.0.1:{free_port()}"
    told, really = (fresh.sh("login", nobody, *more) for more in (("--dry-run",), ()))
    assert told.status == 125 and told.err.startswith("ERROR: ")
    assert (told.status, told.err) == (really.status, really.err)
    other = fresh.sh("login", cluster.address, "--ca", "00" * 32, "--dry-run")
    assert other.status == 125 and "is not the coordinator that --ca names" in other.err
    ca = cluster.coordinator.run("clusterd", "invite", "--json", "--address", cluster.address).json["ca_sha256"]
    assert fresh.sh("login", cluster.address, "--ca", ca, "--dry-run").status == 0
    there = cluster.sh("login", "elsewhere:5672", "--dry-run")
    assert there.status == 125 and "already logged in as joshua@mba" in there.err


def test_a_logout_deletes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = state(cluster.client.path, cluster.coordinator.path)
    told = cluster.sh("logout", "--dry-run")
    would = f"Would give up joshua@mba at http://{cluster.address}, and delete its key; dry run: nothing was done.\n"
    assert (told.status, told.out, told.err) == (0, would, "")
    assert cluster.sh("logout", "--dry-run", "--json").json == {
        "logged_out": True, "name": "joshua@mba", "dry_run": True
    }  # fmt: skip
    assert state(cluster.client.path, cluster.coordinator.path) == before
    assert cluster.sh("whoami").status == 0
    nobody = make_home(tmp_path, "nobody").sh("logout", "--dry-run")
    assert (nobody.status, nobody.out) == (0, "Not logged in; nothing to do.\n")


def test_up_and_down_start_and_stop_nothing(cluster: Cluster, tmp_path: Path) -> None:
    home, port = make_home(tmp_path, "home"), free_port()
    told = home.sh("up", "--port", port, "--dry-run")
    would = f"start clusterd and clusteragent and log in (the coordinator at 127.0.0.1:{port})"
    assert (told.status, told.out) == (0, f"Would {would}; dry run: nothing was done.\n")
    document = {"coordinator": f"127.0.0.1:{port}", "would_start": ["clusterd", "clusteragent"], "dry_run": True}
    assert home.sh("up", "--port", port, "--dry-run", "--json").json == document
    assert not state(home.path)
    taken = home.sh("up", "--port", cluster.address.rpartition(":")[2], "--dry-run")
    assert taken.status == 125 and "is taken by" in taken.err
    nothing = home.sh("down", "--dry-run")
    assert (nothing.status, nothing.out) == (
        0,
        f"Would stop nothing: nothing runs in {home.path}; dry run: nothing was done.\n",
    )
    pid = cluster.coordinator_process.pid
    stops = cluster.coordinator.sh("down", "--dry-run")
    assert stops.out == f"Would stop clusterd (process {pid}); dry run: nothing was done.\n"
    document = {"would_stop": {"clusteragent": None, "clusterd": pid}, "dry_run": True}
    assert cluster.coordinator.sh("down", "--dry-run", "--json").json == document
    assert cluster.coordinator_process.poll() is None
    assert cluster.sh("whoami").status == 0


def test_a_service_is_neither_installed_nor_removed(cluster: Cluster, tmp_path: Path) -> None:
    home = make_home(tmp_path, "home")
    before = state(tmp_path)
    told = home.run("clusterd", "service", "install", "--dry-run")
    assert told.status == 0 and told.out.endswith("\ndry run: nothing was done\n"), told
    document = home.run("clusterd", "service", "install", "--dry-run", "--json").json
    assert (document["program"], document["scope"], document["dry_run"]) == ("clusterd", "user", True)
    (written,) = [step for step in document["would"] if step["do"] == "write"]
    assert f"Would write {written['what']}:\n  {written['content'].splitlines()[0]}\n" in told.out
    assert str(home.path) in written["content"] and not Path(written["what"]).exists()
    for step in document["would"]:
        assert f"Would {step['do']} {step['what']}" in told.out
    assert any(step["do"] == "run" for step in document["would"])
    assert home.run("clusterd", "service", "status").out.startswith("service:  not installed")
    nothing = home.run("clusterd", "service", "uninstall", "--dry-run")
    assert nothing.status == 0 and nothing.out.startswith("Nothing to do for the service clusterd ("), nothing
    told, really = (home.run("clusteragent", "service", "install", *more) for more in (("--dry-run",), ()))
    assert told.status == 125 and "not enrolled" in told.err, told
    assert (told.status, told.out, told.err) == (really.status, really.out, really.err)
    assert home.run("clusteragent", "service", "install", "--dry-run", "--no-start").status == 0
    wrong = home.run("clusterd", "service", "status", "--dry-run")
    assert wrong.status == 125 and "--dry-run is for install and uninstall" in wrong.err, wrong
    assert state(tmp_path) == before


def test_a_machine_neither_enrolls_nor_leaves(cluster: Cluster, tmp_path: Path) -> None:
    fresh = make_home(tmp_path, "fresh")
    words = ("enroll", cluster.address, "--name", "ws9", "--dry-run")
    told = fresh.run("clusteragent", *words)
    would = f"Would ask the coordinator at {cluster.address} to take this machine in as ws9"
    assert (told.status, told.out) == (0, f"{would}; dry run: nothing was done.\n")
    assert json.loads(fresh.run("clusteragent", *words, "--json").stdout) == {
        "machine": "ws9", "coordinator": cluster.address, "dry_run": True
    }  # fmt: skip
    assert not state(fresh.path)
    known = cluster.client.statuses()
    assert "ws1" in known and "ws9" not in known
    runs = cluster.agent.run("clusteragent", "leave", "--dry-run")
    assert runs.status == 125 and f"is in use by process {cluster.agent_process.pid}" in runs.err
    none = fresh.run("clusteragent", "leave", "--dry-run")
    assert (none.status, none.out) == (0, "Not enrolled; nothing to give up.\n")
    assert fresh.run("clusteragent", "enroll", cluster.address, "--name", "ws9").status == 0
    before = state(fresh.path)
    left = fresh.run("clusteragent", "leave", "--purge", "--dry-run")
    would = "Would give up the registration of ws9, and delete its key; dry run: nothing was done.\n"
    assert (left.status, left.out) == (0, would)
    assert state(fresh.path) == before
    assert cluster.status_of("ws9") == "offline"
