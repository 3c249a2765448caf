"""The checks of disks, services and commands."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import psutil
import pytest

from clustersh.probe.commands import check_command
from clustersh.probe.disk import check_disk
from clustersh.probe.failed import Failed
from clustersh.probe.grammar import read_disk
from clustersh.probe.services import check_service

PATIENCE_S = 30.0
ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="bash, and programs as POSIX has them")


def failed(check, subject, timeout_s: float = PATIENCE_S) -> str:
    with pytest.raises(Failed) as failure:
        check(subject, timeout_s)
    return str(failure.value)


# -- disk


def test_a_disk_is_as_full_as_psutil_says(tmp_path):
    said = check_disk(read_disk(f"{tmp_path} < 100%"), PATIENCE_S)
    used = float(re.fullmatch(r"([\d.]+)% used, [\d.]+ [kMGT]?B free", said)[1])
    assert used == pytest.approx(psutil.disk_usage(str(tmp_path)).percent, abs=0.5)


def test_a_disk_is_held_against_its_rule(tmp_path):
    usage = shutil.disk_usage(tmp_path)
    assert "% used, " in failed(check_disk, read_disk(f"{tmp_path} < 0%"))
    for amount in (f"{usage.total * 2}", "100%"):
        assert "% used, " in failed(check_disk, read_disk(f"{tmp_path} > {amount} free"))
    for amount in (f"{usage.free // 2}", "0%"):
        assert check_disk(read_disk(f"{tmp_path} > {amount} free"), PATIENCE_S)


def test_what_is_no_disk_is_said(tmp_path, monkeypatch):
    assert failed(check_disk, read_disk(f"{tmp_path}/gone < 90%")) == "No such file or directory"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_disk(read_disk("~ < 100%"), PATIENCE_S)
    assert failed(check_disk, read_disk("~/gone < 90%")) == "No such file or directory"
    assert failed(check_disk, read_disk("~nobody-of-that-name < 90%")) == "there is no such user"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_file_system_without_a_size_is_no_disk():
    assert failed(check_disk, read_disk("/proc < 90%")) == "no disk: its size is 0"


# -- service: systemd manages nothing where these tests were written, so a stand-in answers in its words


SYSTEMCTL = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
*--user*" -- mine") echo LoadState=loaded; echo ActiveState=active; echo SubState=exited ;;
*" -- nginx") echo LoadState=loaded; echo ActiveState=active; echo SubState=running ;;
*" -- broken") echo LoadState=loaded; echo ActiveState=failed; echo SubState=failed ;;
*" -- slow") exec sleep 60 ;;
*) echo LoadState=not-found; echo ActiveState=inactive; echo SubState=dead ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A PATH whose systemctl is *script*."""

    def stand_in(script: str = SYSTEMCTL) -> Path:
        program = tmp_path / "systemctl"
        program.write_text(script.format(log=tmp_path / "log"))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
        monkeypatch.setattr(sys, "platform", "linux")
        return tmp_path / "log"

    return stand_in


@ON_POSIX
def test_a_unit_is_as_systemd_says(systemctl):
    log = systemctl()
    assert check_service("nginx", PATIENCE_S) == "active (running)"
    assert check_service("mine", PATIENCE_S) == "active (exited)"  # the user's own
    assert failed(check_service, "broken") == "failed (failed)"
    assert failed(check_service, "gone") == "systemd knows no such unit"
    assert failed(check_service, "slow", 0.2) == "no answer within 0.2s"
    assert log.read_text().splitlines()[0] == "show --property=LoadState,ActiveState,SubState -- nginx"


@ON_POSIX
def test_a_systemd_that_runs_nothing_is_said(systemctl):
    systemctl("#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")
    assert failed(check_service, "nginx") == "systemd does not answer: System has not been booted with systemd"
    systemctl("#!/bin/sh\nexit 3\n")
    assert failed(check_service, "nginx") == "systemd does not answer: exit 3"


@ON_POSIX
def test_a_machine_without_a_manager_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    said = "nothing manages services here that could be asked (there is no systemctl)"
    assert failed(check_service, "nginx") == said


LAUNCHCTL = """#!/bin/sh
case $2 in
gui/{user}/org.mine) printf 'org.mine = {{\\n\\tstate = running\\n\\t\\tstate = x\\n' ;;
system/org.idle) printf 'org.idle = {{\\n\\tstate = waiting\\n' ;;
*) exit 113 ;;
esac
"""


@ON_POSIX
def test_a_service_is_as_launchd_says(tmp_path, monkeypatch):
    # launchd is nowhere but on macOS: a stand-in answers in its words.
    program = tmp_path / "launchctl"
    program.write_text(LAUNCHCTL.format(user=os.getuid()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check_service("org.mine", PATIENCE_S) == "running"
    assert failed(check_service, "org.idle") == "waiting"
    assert failed(check_service, "org.gone") == "launchd knows no such service"


def test_a_service_is_as_windows_says(monkeypatch):
    # Windows' services are asked through psutil, which has that call nowhere else: a stand-in answers.
    states = {"W32Time": "running", "Spooler": "stopped"}

    def win_service_get(name: str) -> SimpleNamespace:
        if name not in states:
            raise psutil.NoSuchProcess(None, name)
        return SimpleNamespace(status=lambda: states[name])

    monkeypatch.setattr(psutil, "win_service_get", win_service_get, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert check_service("W32Time", PATIENCE_S) == "running"
    assert failed(check_service, "Spooler") == "stopped"
    assert failed(check_service, "gone") == "Windows knows no such service"


# -- command


@ON_POSIX
def test_a_command_passes_with_exit_status_0():
    assert re.fullmatch(r"exit 0 in \d+ ms", check_command("[[ a == a ]] && echo fine", PATIENCE_S))


@ON_POSIX
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo first; echo why >&2; echo; exit 3", "exit 3: why"),
        ("exit 1", "exit 1"),
        ("kill -9 $$", "signal 9"),
        ("seq 200000; exit 2", "exit 2: 200000"),
        ("printf 'a\\377b'; exit 2", "exit 2: a\ufffdb"),
    ],
)
def test_a_command_that_fails_is_told_with_its_last_line(line, said):
    assert failed(check_command, line) == said


@ON_POSIX
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    pids = tmp_path / "pids"
    line = f"sleep 600 & echo $! $$ > {pids}; echo waiting; wait"
    assert failed(check_command, line, 1.0) == "still ran after 1s: waiting"
    deadline = monotonic() + PATIENCE_S
    for pid in map(int, pids.read_text().split()):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert monotonic() < deadline, f"{pid} is still there"


@ON_POSIX
def test_what_a_command_left_in_the_background_is_not_waited_for(tmp_path):
    begun = monotonic()
    try:
        assert failed(check_command, f"sleep 600 & echo $! > {tmp_path}/pid; echo why; exit 3") == "exit 3: why"
        assert monotonic() - begun < PATIENCE_S
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_without_a_shell_it_is_said(monkeypatch):
    monkeypatch.setattr("clustersh.probe.commands._argv", lambda line: ["/nowhere/bash", "-c", line])
    assert failed(check_command, "true") == "No such file or directory"
