"""The state directory is private and checked at every start, and no secret comes out of it or of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.services import faulty_cluster, workplace
from tests.faults.users import USER
from tests.hostile.attackers import still_serves
from tests.real.programs import Cluster, end, eventually

SECRET = "hunter2-5f1c9a7e"


@pytest.fixture(scope="module")
def stopped() -> Iterator[Cluster]:
    """A cluster that ran something and was stopped."""
    with workplace() as folder, faulty_cluster(folder) as made:
        still_serves(made)
        end(made.agent_process)
        end(made.coordinator_process)
        yield made


def test_the_programs_are_never_roots_own(cluster: Cluster) -> None:
    """Else every test here that something is refused would hold of nothing."""
    expected = USER if os.geteuid() == 0 else os.geteuid()
    for process in (cluster.coordinator_process, cluster.agent_process):
        assert set(psutil.Process(process.pid).uids()) == {expected}
    assert cluster.sh("run", "ws1", "id -u").out == f"{expected}\n"
    for home in (cluster.coordinator, cluster.agent, cluster.client):
        assert {path.lstat().st_uid for path in everything(home.path)} == {expected}


def everything(home: Path) -> list[Path]:
    """Return what the programs made under *home*; a job's own files may be as the job wants."""
    return [Path(folder, name) for folder, folders, files in os.walk(home) for name in [*folders, *files]]


def loose(home: Path) -> list[str]:
    return [
        f"{path} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in everything(home)
        if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]


def test_everything_under_the_state_directories_is_private(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello")
    assert (
        cluster.sh("run", "--file", str(tmp_path / "hello"), "ws1", "cat hello; head -c 300000 /dev/zero").status == 123
    )
    for home in (cluster.coordinator, cluster.agent, cluster.client):
        assert everything(home.path)
        assert loose(home.path) == []


KEYS = [
    ("coordinator", "clusterd", "coordinator/ca-key.pem"),
    ("coordinator", "clusterd", "coordinator/server-key.pem"),
    ("coordinator", "clusterd", "coordinator/digest.key"),
    ("coordinator", "clusterd", "coordinator/admin/key.pem"),
    ("agent", "clusteragent", "agent/key.pem"),
]


@pytest.mark.parametrize(("whose", "program", "key"), KEYS, ids=[key for _, _, key in KEYS])
def test_a_key_that_others_may_read_stops_the_start_and_names_the_chmod(
    stopped: Cluster, whose: str, program: str, key: str
) -> None:
    home = getattr(stopped, whose)
    path = home.path / key
    before = path.read_bytes()
    for mode in (0o640, 0o604):
        path.chmod(mode)
        words = ("--listen", stopped.address) if program == "clusterd" else ()
        done = home.run(program, *words)
        path.chmod(0o600)
        assert done.status == 1, done
        assert f"chmod 600 {path}" in done.err, done.err
        assert "Traceback" not in done.err
    assert path.read_bytes() == before


def test_a_clients_key_that_others_may_read_is_not_used(cluster: Cluster) -> None:
    key = cluster.client.path / "client" / "key.pem"
    key.chmod(0o644)
    try:
        for words in (("machines",), ("run", "ws1", "true"), ("cat", "ws1", "00000000")):
            done = cluster.sh(*words)
            assert done.status == 125, done
            assert f"chmod 600 {key}" in done.err, done.err
    finally:
        key.chmod(0o600)


def test_what_was_opened_to_others_is_closed_at_the_next_start(stopped: Cluster) -> None:
    for home in (stopped.coordinator, stopped.agent):
        for path in everything(home.path):
            if not path.name.endswith(("key.pem", ".key")) and len(path.relative_to(home.path).parts) < 4:
                path.chmod(0o777 if path.is_dir() else 0o666)
        assert loose(home.path)
    stopped.restart_coordinator()
    stopped.restart_agent()
    for home in (stopped.coordinator, stopped.agent):
        assert loose(home.path / ("coordinator" if home is stopped.coordinator else "agent")) == []
    still_serves(stopped)
    end(stopped.agent_process)
    end(stopped.coordinator_process)


def command_lines() -> set[bytes]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.add((folder / "cmdline").read_bytes())
    return found


def test_a_secret_in_the_environment_comes_out_nowhere(cluster: Cluster, tmp_path: Path) -> None:
    """Not in an argv at any moment, not in the ledger, the index, a log or an error; the command alone has it."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.update(command_lines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    environ = {"TOKEN": SECRET}
    try:
        command = f"test ${{#TOKEN}} = {len(SECRET)} && sleep 0.5 && echo has it"
        done = cluster.sh("run", "--env", "TOKEN", "ws1", command, environ=environ)
        assert (done.status, done.out) == (0, "has it\n"), done
        script = tmp_path / "script"
        script.write_text(f"#!/bin/bash\n{command}\n")
        assert cluster.sh("run", "--env", "TOKEN", "--script", str(script), "ws1", environ=environ).out == "has it\n"
        assert cluster.sh("run", "--env", "TOKEN", "ws1", "exec nosuchprogram", environ=environ).status == 127
        assert cluster.sh("run", "--env", "TOKEN", "--cwd", "/nosuch", "ws1", "true", environ=environ).status == 125
        assert cluster.sh("run", "--env", "TOKEN", "nosuch", "true", environ=environ).status == 125
        crashed = cluster.sh("run", "--env", "TOKEN", "ws1", "--detach", "sleep 60", environ=environ).out.strip()
        cluster.until_job(crashed, "running")
        end(cluster.agent_process, signal.SIGKILL)
        cluster.restart_agent()
        cluster.until_job(crashed, "interrupted")
    finally:
        stop.set()
        watcher.join()
    assert not [line for line in seen if SECRET.encode() in line or b"PRIVATE KEY" in line]
    for home in (cluster.coordinator, cluster.agent):
        assert "PRIVATE KEY" not in home.log.read_text()
    assert cluster.sh("history", "--json").out.count(SECRET) == 0
    assert cluster.coordinator.run("clusterd", "audit", "--json").out.count(SECRET) == 0
    eventually(lambda: not _holding(cluster), seconds=10, what=f"no file with the secret: {_holding(cluster)}")


def _holding(cluster: Cluster) -> list[Path]:
    homes = (cluster.coordinator, cluster.agent, cluster.client)
    found = []
    for path in [*(path for home in homes for path in everything(home.path)), *(home.log for home in homes)]:
        with contextlib.suppress(OSError):
            if path.is_file() and SECRET.encode() in path.read_bytes():
                found.append(path)
    return found
