"""What commands find in their environment."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from clustersh.agent import environment
from clustersh.agent.environment import as_bytes, for_job, read_environment, service_environment
from clustersh.agent.tree import take_snapshot

from .jobs_support import alive

ensure = pytest_twisted.ensureDeferred


def shell(tmp_path, text: str):
    path = tmp_path / "shell"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return mock.patch.object(environment, "_account", lambda: (str(path), {"HOME": str(tmp_path)}))


def test_what_is_only_the_services_is_left_out():
    found = service_environment(
        {
            "PATH": "/venv/bin:/usr/bin",
            "VIRTUAL_ENV": "/venv",
            "SHLVL": "2",
            "PWD": "/",
            "CLUSTERSH_JOB": "outer",
            "CLUSTERSH_HOME": "/x",
            "LANG": "C",
        }
    )
    assert found == {"PATH": "/usr/bin", "LANG": "C"}


def test_a_jobs_environment_has_its_marks_last():
    found = for_job(as_bytes({"A": "1", "B": "\udcff"}), "uuid", "ws1", {"A": "ü"})
    assert found == {b"A": "ü".encode(), b"B": b"\xff", b"CLUSTERSH_JOB": b"uuid", b"CLUSTERSH_MACHINE": b"ws1"}


@ensure
async def test_the_login_shells_environment_is_read(host, tmp_path):
    # As a login shell's start-up files would: they print, set variables, and activate a virtual environment.
    run = 'echo hi; export PATH=/opt/own:$PATH FROM_LOGIN="two\nlines" VIRTUAL_ENV=/own; shift 3; eval "$1"; echo bye'
    with shell(tmp_path, run):
        found = await read_environment(reactor, "login", {"PATH": os.environ["PATH"], "KEPT": "1"}, host.ender)
    assert found["FROM_LOGIN"] == "two\nlines"
    assert found["PATH"] == "/opt/own:" + os.environ["PATH"]
    assert (found["KEPT"], found["VIRTUAL_ENV"], found["HOME"]) == ("1", "/own", str(tmp_path))
    assert not {"CLUSTERSH_JOB", "CLUSTERSH_MACHINE", "PWD", "_"} & set(found)


@ensure
async def test_this_users_own_login_shell_tells_a_path(host):
    own = {**os.environ, "SHLVL": "7", "CLUSTERSH_JOB": "outer"}
    with mock.patch.object(environment.log, "warn") as warned:
        found = await read_environment(reactor, "login", own, host.ender)
    assert found["PATH"]
    assert not warned.called


@ensure
async def test_a_service_environment_starts_no_shell(host, tmp_path):
    with shell(tmp_path, f"touch {tmp_path}/ran"):
        found = await read_environment(reactor, "service", {"A": "1"}, host.ender)
    assert found == {"A": "1"}
    assert not (tmp_path / "ran").exists()


@ensure
@pytest.mark.parametrize("text", ["exit 1", "echo nothing", "exec /no/such"])
async def test_a_shell_that_tells_nothing_leaves_the_services_own(host, tmp_path, text):
    with shell(tmp_path, text):
        assert await read_environment(reactor, "login", {"A": "1"}, host.ender) == {"A": "1", "HOME": str(tmp_path)}


@ensure
async def test_a_shell_that_hangs_is_ended_with_its_children(host, tmp_path):
    hang = "trap '' TERM; sleep 61.5 & setsid sleep 61.5 & sleep 61.5"
    with shell(tmp_path, hang), mock.patch.object(environment, "LOGIN_LIMIT_S", 0.5):
        assert (await read_environment(reactor, "login", {"A": "1"}, host.ender))["A"] == "1"
    left = [pid for pid in take_snapshot() if b"61.5" in _command_line(pid)]
    assert left == []


@ensure
async def test_a_missing_shell_leaves_the_services_own(host, tmp_path):
    with mock.patch.object(environment, "_account", lambda: ("/no/such", {})):
        assert await read_environment(reactor, "login", {"A": "1"}, host.ender) == {"A": "1"}


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@ensure
async def test_a_login_shell_is_ended_with_the_agent_that_waits_for_it(host, tmp_path):
    told = tmp_path / "pid"
    with shell(tmp_path, f"trap '' TERM; echo $$ > {told}.new; mv {told}.new {told}; sleep 60"):
        reading = Deferred.fromCoroutine(read_environment(reactor, "login", dict(os.environ), host.ender))
        while not told.exists():
            await deferLater(reactor, 0.01)
        reading.cancel()
        with pytest.raises(CancelledError):
            await reading
    assert not alive(int(told.read_text()))
