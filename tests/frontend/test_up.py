"""``up`` and ``down`` with the real programs, on a free port, in a home of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import pytest_twisted
from twisted.internet import reactor

from clustersh.cli.errors import CliError
from clustersh.frontend.programs import AGENT, COORDINATOR, Program, Programs
from clustersh.home import read_running

pytestmark = pytest.mark.real


class Shell:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "state"
        self.environ = {**os.environ, "CLUSTERSH_HOME": str(self.home), "HOME": str(folder), "USER": "ann"}

    def __call__(self, *words: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        program = "from clustersh.frontend.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=timeout,
        )

    def pid(self, program: str) -> int:
        running = read_running(self.home / program)
        assert running is not None
        return running.pid


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for program in ("agent", "coordinator"):
        running = read_running(made.home / program)
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_up_run_again_down_and_up_once_more(shell: Shell) -> None:
    port = free_port()
    up = shell("up", "--port", str(port), "--name", "here")
    assert (up.returncode, up.stderr) == (0, "")
    lines = up.stdout.splitlines()
    assert lines[0].startswith("One trust domain")
    shown = [line.split("   (log")[0] for line in lines if line.startswith("$ ")]
    code = next(line for line in lines if line.startswith("To allow ann@")).split()[-3]
    assert shown == [
        f"$ clusterd --listen 127.0.0.1:{port}",
        f"$ clusteragent enroll 127.0.0.1:{port} --name here",
        "$ clusteragent",
        f"$ clusterd approve {code}",
    ]
    assert lines[-1] == "Stop:   clustersh down"
    ran = shell("run", "here", "echo works; exit 3")
    assert (ran.returncode, ran.stdout) == (3, "works\n")
    assert shell("whoami").stdout.startswith("ann@")

    pids = shell.pid("coordinator"), shell.pid("agent")
    again = shell("up", "--port", str(free_port()))
    assert again.returncode == 0
    assert again.stdout.startswith(f"Already running: coordinator at http://127.0.0.1:{port} (process {pids[0]})")
    assert "nothing was changed" in again.stderr
    assert (shell.pid("coordinator"), shell.pid("agent")) == pids
    loose = [path for path in shell.home.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert loose == []

    down = shell("down")
    assert (down.returncode, down.stderr) == (0, "")
    assert down.stdout == f"Stopped clusteragent (process {pids[1]}).\nStopped clusterd (process {pids[0]}).\n"
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    assert shell("down").stdout == f"Nothing runs here (in {shell.home}).\n"

    once_more = shell("up", "--json")
    assert once_more.returncode == 0, once_more.stderr
    document = json.loads(once_more.stdout)
    assert (document["coordinator"], document["machine"], document["started"]) == (f"127.0.0.1:{port}", "here", True)
    assert "approve" not in once_more.stderr  # the key and the machine are known
    assert shell("run", "here", "echo again").stdout == "again\n"


def test_an_enrollment_that_needs_an_approval_gets_it(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "config.toml").write_text('[enrollment]\npolicy = "approve"\n')
    up = shell("up", "--port", str(free_port()), "--name", "here")
    assert up.returncode == 0, up.stderr
    assert up.stdout.count("$ clusterd approve ") == 2
    assert shell("run", "here", "echo works").stdout == "works\n"


def test_a_taken_port_names_its_holder(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = shell("up", "--port", str(port))
    assert (up.returncode, up.stdout) == (125, "")
    error, hint = up.stderr.splitlines()
    assert error == f"ERROR: port {port} is taken by {psutil.Process().name()} (process {os.getpid()})"
    assert hint == f"hint: choose another: clustersh up --port {port + 1}"
    assert read_running(shell.home / "coordinator") is None


def test_what_keeps_the_coordinator_from_starting_is_told(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "config.toml").write_text("[coordinator]\nlisten_on = 3\n")
    up = shell("up", "--port", str(free_port()))
    assert up.returncode == 125
    assert "clusterd did not start: " in up.stderr
    assert "listen_on" in up.stderr
    assert "Traceback" not in up.stderr


@pytest_twisted.ensureDeferred
async def test_what_ends_before_it_has_a_log_left_its_last_words_elsewhere(tmp_path: Path) -> None:
    broken = Program("clusterd", "clustersh.no_such_module", "coordinator")
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "log").write_text("of an earlier time\n")
    with pytest.raises(CliError) as caught:
        await Programs(reactor, tmp_path, os.environ).start(broken)
    log = tmp_path / "coordinator" / "start.log"
    assert str(caught.value) == f"clusterd did not start: its log says why: {log}"
    assert "no_such_module" in log.read_text()


@pytest.mark.parametrize("program", [COORDINATOR, AGENT], ids=lambda program: program.script)
def test_the_folder_where_somebody_is_gives_the_services_no_code(program: Program, tmp_path: Path) -> None:
    decoy = tmp_path / "clustersh"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise SystemExit('this is not clustersh')\n")
    ran = subprocess.run(program.command("--help"), cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert program.script in ran.stdout


def test_down_kills_what_does_not_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("up", "--port", str(free_port()), "--name", "here").returncode == 0
    agent = shell.pid("agent")
    os.kill(agent, signal.SIGSTOP)
    began = time.monotonic()
    down = shell("down")
    assert (down.returncode, down.stderr) == (0, "")
    assert 14 < time.monotonic() - began < 40
    assert read_running(shell.home / "agent") is None


@pytest.mark.parametrize("words", [("--port", "0"), ("--port", "x"), ("--listen", "a:b:c"), ("--name", "All!")])
def test_arguments_that_make_no_sense(shell: Shell, words: tuple[str, str]) -> None:
    up = shell("up", *words)
    assert (up.returncode, up.stdout) == (125, "")
    assert up.stderr.startswith("ERROR: ")
    assert not (shell.home / "coordinator").exists()


def test_another_users_services_are_not_said_to_be_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CliError, match="another user's"):
        Programs(None, tmp_path, {}).running(AGENT)


def test_an_agent_that_is_not_enrolled_says_how(shell: Shell) -> None:
    command = [sys.executable, "-m", "clustersh.agent"]
    done = subprocess.run(command, capture_output=True, text=True, env=shell.environ, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: this machine is not enrolled")
    assert done.stderr.endswith("\nhint: clusteragent enroll COORDINATOR-ADDRESS\n")
