"""Ctrl-C at any moment of a program's start: no traceback, and a service still ends in order once it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..real.programs import Home, make_home

PROGRAMS = {"clustersh": "clustersh.frontend", "clusterd": "clustersh.coordinator", "clusteragent": "clustersh.agent"}
INTERRUPTING = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = {argv!r}
from {room}.main import main; main()
"""
WATCHING = """
import os, signal, sys
early = []
class Watching:
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler: early.append(name)
sys.meta_path.insert(0, Watching())
import {room}.main
print(*early)
"""

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("program", "word", "module"),
    [
        ("clustersh", "run", "clustersh.standard_descriptors"),
        ("clustersh", "run", "clustersh.cli.program"),
        ("clustersh", "run", "clustersh.frontend.commands"),
        ("clustersh", "run", "clustersh.frontend.run"),
        ("clusterd", "pending", "clustersh.cli.program"),
        ("clusterd", "pending", "clustersh.coordinator.admin_commands"),
        ("clusterd", "--listen=127.0.0.1:0", "clustersh.daemon"),
        ("clusterd", "--listen=127.0.0.1:0", "clustersh.coordinator.service"),
        ("clusteragent", "status", "clustersh.agent.status"),
        ("clusteragent", "--logfile=log", "pathlib"),
        ("clusteragent", "--logfile=log", "clustersh.daemon"),
    ],
)
def test_an_interrupt_while_it_still_imports_is_quiet(tmp_path: Path, program: str, word: str, module: str) -> None:
    code = INTERRUPTING.format(module=module, argv=[program, word], room=PROGRAMS[program])
    home = make_home(tmp_path, "home")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=home.environment()
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr and "KeyboardInterrupt" not in done.stderr


@pytest.mark.parametrize("room", PROGRAMS.values())
def test_nothing_is_imported_before_an_interrupt_is_quiet(room: str) -> None:
    code = WATCHING.format(room=room)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["clustersh", room, f"{room}.main"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = make_home(tmp_path, "home")
    yield made
    made.stop()


def test_an_interrupt_ends_a_running_coordinator_in_order(home: Home) -> None:
    process = home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT  # twistd's way: what the signal asked for is done, then it dies of it
    assert not (home.path / "coordinator" / "run.json").exists()
    assert "Traceback" not in home.log.read_text()
