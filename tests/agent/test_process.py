"""The processes below the jobs, and what of Twisted's private parts they rest on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest import mock

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from clustersh.agent.process import ProcessListener, SessionProcess, SpawnError, spawn

ensure = pytest_twisted.ensureDeferred


class Listener(ProcessListener):
    def __init__(self) -> None:
        self.text = b""
        self.transport = None
        self.done: Deferred[tuple] = Deferred()

    def spawned(self, transport) -> None:
        self.transport = transport

    def output(self, stream, data) -> None:
        self.text += data

    def exited(self, code, number) -> None:
        self.done.callback((code, number))


def shell(line: str) -> list[bytes]:
    return [b"/bin/sh", b"-c", line.encode()]


@ensure
async def test_the_child_leads_a_session_of_its_own():
    """Guards Process._trySpawnInsteadOfFork and its keyword fdmap, which Twisted may change at any release."""
    listener = Listener()
    with mock.patch.object(os, "fork", side_effect=AssertionError("it forked")):
        spawn(reactor, listener, shell("read x"), {}, stdin=True)
    pid = listener.transport.pid
    assert os.getsid(pid) == pid != os.getsid(0)
    listener.transport.signalProcess("KILL")
    assert await listener.done == (None, signal.SIGKILL)


@ensure
async def test_the_child_leads_a_session_where_posix_spawn_knows_none():
    """Guards Process._setupChild."""
    listener = Listener()
    with mock.patch.object(os, "posix_spawn", side_effect=NotImplementedError):
        spawn(reactor, listener, shell("echo up; read x"), {}, stdin=True)
    pid = listener.transport.pid
    listener.transport.write(b"\n")
    assert await listener.done == (0, None)
    assert listener.text == b"up\n"
    assert pid != os.getpid()


@ensure
async def test_a_child_without_a_session_is_not_left_running():
    listener = Listener()
    children = []
    real = os.posix_spawn

    def without_session(*words, **more):
        children.append(real(*words, **{**more, "setsid": False}))
        return children[-1]

    with (
        mock.patch.object(os, "posix_spawn", without_session),
        pytest.raises(SpawnError, match="session of its own"),
    ):
        spawn(reactor, listener, shell("sleep 60"), {}, stdin=False)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == -signal.SIGKILL


def test_a_program_that_is_not_there_is_one_clear_error():
    with pytest.raises(SpawnError, match="can't run /no/such: No such file or directory"):
        spawn(reactor, Listener(), [b"/no/such"], {}, stdin=False)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_failed_spawn_leaves_no_descriptor_open():
    before = open_descriptors()
    for _ in range(5):
        with pytest.raises(SpawnError):
            spawn(reactor, Listener(), [b"/no/such"], {}, stdin=True)
    assert open_descriptors() == before


@ensure
async def test_ignored_signals_are_the_childs_own_again():
    listener = Listener()
    spawn(reactor, listener, shell("kill -PIPE $$; echo survived"), {}, stdin=False)
    assert await listener.done == (None, signal.SIGPIPE)
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


@ensure
async def test_an_exit_before_spawn_returns_is_not_lost():
    listener = Listener()
    real = SessionProcess._check_session

    def wait_for_the_exit(process):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        real(process)

    with mock.patch.object(SessionProcess, "_check_session", wait_for_the_exit):
        spawn(reactor, listener, shell("echo quick; exit 5"), {}, stdin=False)
    assert await listener.done == (5, None)
    assert listener.text == b"quick\n"
