"""`clustersh up`: everything on one machine, by the real programs."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .programs import Home, eventually, make_home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = make_home(tmp_path, "home")
    yield made
    made.sh("down")
    made.stop()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_up_runs_everything_and_down_ends_it(home: Home) -> None:
    port = free_port()
    up = home.sh("up", "--port", port, "--name", "here")
    assert up.status == 0, up
    assert "clusterd approve " in up.out + up.err, "the approval is visible"
    assert "clustersh down" in up.out + up.err
    pids = [home.running(service)["pid"] for service in ("coordinator", "agent")]
    assert home.sh("run", "here", "echo up").out == "up\n"
    again = home.sh("up", "--port", port)
    assert again.status == 0 and "already" in (again.out + again.err).lower()
    assert [home.running(service)["pid"] for service in ("coordinator", "agent")] == pids
    down = home.sh("down")
    assert down.status == 0
    # A service lets go of its folder, which is what `down` waits for, a moment before its process is gone.
    eventually(lambda: not any(is_alive(pid) for pid in pids), 5)
    assert home.sh("down").status == 0
    back = home.sh("up", "--port", port)
    assert back.status == 0, back
    assert home.sh("run", "here", "echo again").out == "again\n"


def test_up_where_machines_need_a_token_makes_one_and_does_not_show_it(home: Home) -> None:
    home.path.mkdir(mode=0o700)
    (home.path / "config.toml").write_text('[enrollment]\npolicy = "token"\n')
    up = home.sh("up", "--port", free_port(), "--name", "here")
    assert up.status == 0, up
    assert "$ clusterd token create --ttl 5m\n$ clusteragent enroll " in up.out
    assert not re.search(r"[0-9a-f]{12}-[0-9a-f]{40}", up.out + up.err)
    assert home.sh("run", "here", "echo ${CLUSTERSH_TOKEN-none}").out == "none\n"


def test_up_on_a_taken_port_names_the_holder_and_changes_nothing(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        answer = home.sh("up", "--port", port)
    assert answer.status != 0
    assert answer.err.startswith("ERROR: ") and port in answer.err and "--port" in answer.err
    assert home.running("coordinator") == {} and home.running("agent") == {}
