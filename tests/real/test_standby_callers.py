"""Callers that differ: what each brings is its own affair, and nobody's standby is kept or slowed down by it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustersh.frontend.standby import frames
from clustersh.frontend.standby.place import find
from clustersh.home import private_folder

from .programs import BIN, Cluster, end, eventually
from .standbys import Standby, runs, waited

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HANGS = """\
import sys
if "clustersh.frontend.standby.main" in sys.orig_argv:
    import signal, time
    arm = signal.setitimer
    def spin(*_):
        while True:
            pass
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
    signal.signal(signal.SIGUSR2, spin)
    signal.setitimer = lambda which, seconds: arm(which, seconds / 20)
"""
"""A module that Python imports at its start: it has a standby sleep, or loop, for ever when told so."""

SIGNALLED = """\
import os, signal, sys
class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == "clustersh.frontend.standby.relay":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Signalling())
from clustersh.frontend.main import main
main()
"""
"""A launcher that gets a signal when it has handed its call over, and hasn't imported yet what passes signals on."""


@pytest.fixture
def fresh(standing: Cluster) -> Iterator[Cluster]:
    """The cluster with no standby yet, and none afterwards: it may be a special one."""
    standing.sh("standby", "stop")
    yield standing
    standing.sh("standby", "stop")


def called(cluster: Cluster, *before: str, **environ: str) -> str:
    """Run a command by way of the words *before*, and return what it printed."""
    done = subprocess.run(
        [*before, BIN / "clustersh", "run", "ws1", "echo called"],
        env=cluster.client.environment(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def soft_and_hard(pid: int) -> dict[str, tuple[str, str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    found = (re.fullmatch(r"(Max .+?) {2,}(\S+) +(\S+) .*", line) for line in lines)
    return {each[1]: (each[2], each[3]) for each in found if each}


@linux
def test_what_its_first_caller_may_use_limits_no_other(fresh: Cluster) -> None:
    limited = "ulimit -S -n 64; ulimit -S -t 30; ulimit -S -v 4000000; ulimit -S -f 8; ulimit -c 0"
    lowered = "echo -300 2>/dev/null > /proc/self/oom_score_adj"
    pinned = f"taskset --cpu-list {min(os.sched_getaffinity(0))}"
    assert called(fresh, "bash", "-c", f'{limited}; {lowered}; exec {pinned} "$@"', "bash") == "called\n"
    pid = Standby(fresh).pid
    limits = soft_and_hard(pid)
    for name in ("Max open files", "Max cpu time", "Max address space", "Max file size"):
        assert limits[name][0] == limits[name][1], name
    assert limits["Max core file size"][0] == "0", "its memory has secrets"
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= 0


@linux
@pytest.mark.parametrize("words", ["nice -n 5", "chrt --idle 0", "bash -c 'ulimit -t 600; exec \"$@\"' bash"])
def test_who_is_restrained_leaves_none(fresh: Cluster, words: str) -> None:
    before = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, text=True, check=True)
    assert called(fresh, *before.stdout.split("\0")[:-1]) == "called\n"
    assert fresh.sh("standby", "stop").out == "no standby runs\n", "a stop waits for one that is just starting"


@linux
def test_a_sandbox_without_namespaces_has_its_own(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    assert called(standing, "setpriv", "--no-new-privs") == "called\n"
    assert standby.calls == before
    assert called(standing) == "called\n"
    assert standby.calls == before + 1


def test_names_are_read_in_the_callers_encoding(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ("run", "ws1", "echo grün".encode())
    ours = standing.sh(*words, environ=ascii_only)
    theirs = standing.sh(*words, environ={**ascii_only, "CLUSTERSH_STANDBY": "off"})
    assert (ours.status, ours.out, ours.err) == (theirs.status, theirs.out, theirs.err)
    assert standby.calls == before
    assert standing.sh(*words).out == "grün\n"
    assert standby.calls == before + 1


def test_a_relative_state_directory_is_the_same_one(fresh: Cluster) -> None:
    folder = fresh.client.path
    relative = {"CLUSTERSH_HOME": folder.name}
    pids = set()
    for _ in range(3):
        assert fresh.sh("run", "ws1", "echo x", environ=relative, cwd=folder.parent).out == "x\n"
        standby = Standby(fresh)
        pids.add(standby.pid)
    assert len(pids) == 1 and standby.calls >= 2


@linux
def test_no_more_than_four_are_left(fresh: Cluster) -> None:
    zones = [f"UTC-{number}" for number in range(1, 7)]
    for zone in zones:
        assert called(fresh, TZ=zone) == "called\n"
    pids = [_pid(fresh, zone) for zone in zones[:4]]
    assert len(set(pids)) == 4
    assert [fresh.sh("standby", environ={"TZ": zone}).out for zone in zones[4:]] == ["no standby runs\n"] * 2
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not runs(pids[0]))
    assert called(fresh, TZ=zones[4]) == "called\n"
    _pid(fresh, zones[4])
    assert len(list((fresh.client.runtime / "clustersh").glob("*.lock"))) == 4, "what the dead one left is gone"
    assert fresh.sh("standby", "stop").out.count("Stopped") == 4


def _pid(cluster: Cluster, zone: str) -> int:
    look = lambda: cluster.sh("standby", "--json", environ={"TZ": zone}).json["state"]  # noqa: E731
    return int(eventually(look, what=f"a standby of {zone}")["pid"])


@pytest.fixture
def hanging(fresh: Cluster, tmp_path: Path) -> Standby:
    """A standby that hangs when told so."""
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    assert called(fresh, PYTHONPATH=str(tmp_path)) == "called\n"
    return Standby(fresh)


@linux
def test_one_that_sleeps_is_gone_around_at_once(fresh: Cluster, hanging: Standby, tmp_path: Path) -> None:
    os.kill(hanging.pid, signal.SIGUSR1)
    assert called(fresh) == "called\n"  # it sleeps by now, if it didn't at once
    answer, waits = waited(fresh, tmp_path, "run", "ws1", "echo x")
    assert (answer.status, answer.out, answer.err) == (0, "x\n", "")
    assert waits == [0.02, 0.02], "two looks, to see that it does nothing"
    assert fresh.sh("standby", "stop").out == f"Stopped {hanging.pid}.\n"


@linux
def test_one_that_loops_for_ever_is_ended(fresh: Cluster, hanging: Standby) -> None:
    os.kill(hanging.pid, signal.SIGUSR2)
    assert called(fresh) == "called\n"
    hanging.until_ended()
    assert called(fresh) == "called\n"
    assert hanging.again()


def test_a_folder_by_way_of_a_symlink_is_not_trusted(fresh: Cluster) -> None:
    runtime, elsewhere = fresh.client.runtime / "run", fresh.client.runtime / "elsewhere"
    runtime.mkdir()
    elsewhere.mkdir(mode=0o700)
    (runtime / "clustersh").symlink_to(elsewhere)
    for _ in range(2):
        assert called(fresh, XDG_RUNTIME_DIR=str(runtime)) == "called\n"
    assert list(elsewhere.iterdir()) == []


def test_another_interrupt_leaves_one_that_does_not_answer(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    running = standing.client.open("clustersh", "run", "ws1", f"touch {begun}; exec sleep 60")
    eventually(begun.exists)
    os.kill(standby.pid, signal.SIGSTOP)
    try:
        eventually(lambda: _interrupted(running))
        assert running.returncode == 130
    finally:
        os.kill(standby.pid, signal.SIGCONT)
    eventually(lambda: (standby.state() or {"running": 1})["running"] == 0)


def test_callers_who_wait_for_a_pipe_hold_up_no_other(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    """A file that is a pipe may never come: not while its caller waits for it, and not when nobody does any more."""
    pipe, script = tmp_path / "pipe", tmp_path / "script"
    os.mkfifo(pipe)
    script.write_text("echo from a file")
    words = [("groups", "import-sshsync", str(pipe)), *[("run", "--script", str(pipe), "ws1")] * 11]
    callers = [standing.client.open("clustersh", *each) for each in words]

    def running() -> int:
        return int((standby.state() or {"running": 0})["running"])

    def answers() -> bool:
        return standing.sh("run", "--script", str(script), "ws1", seconds=20).out == "from a file\n"

    eventually(lambda: running() == len(callers))
    before = standby.calls
    assert answers()
    for caller in callers:
        end(caller, signal.SIGKILL)
    eventually(lambda: not running())
    assert answers()
    assert standby.calls == before + 2
    assert standing.sh("standby", "stop").seconds < 4, "it does not wait for what never comes"
    assert not standby.runs()


@linux
@pytest.mark.parametrize("dies", [True, False])
def test_a_termination_is_not_lost_with_the_standby(
    standing: Cluster, standby: Standby, tmp_path: Path, dies: bool
) -> None:
    """Who sends it, as timeout does, sends it once, and waits."""
    begun, go_on = tmp_path / "begun", tmp_path / "go"
    command = f"touch {begun}; until [ -e {go_on} ]; do sleep 0.05; done; echo went on"
    running = standing.client.open("clustersh", "run", "ws1", command)
    eventually(begun.exists)
    os.kill(standby.pid, signal.SIGSTOP)
    try:
        running.send_signal(signal.SIGTERM)
        if dies:
            eventually(lambda: _caught(running.pid, signal.SIGTERM))
            os.kill(standby.pid, signal.SIGKILL)
        out, err = running.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(standby.pid, signal.SIGCONT)
    assert (running.returncode, out) == (123, b"")
    lines = err.decode().splitlines()
    how = "ended in the midst of the command" if dies else "does not answer any more"
    assert lines[0] == f"ERROR: the standby {how}"
    key = lines[1].removeprefix("hint: the same clustersh run with --key ").split()[0]
    go_on.touch()
    assert standing.sh("run", "--key", key, "ws1", command).out == "went on\n"


def test_a_signal_in_the_first_moment_of_a_call_gets_through() -> None:
    words = [sys.executable, "-c", SIGNALLED, "run", "ws1", "true"]
    with tempfile.TemporaryDirectory() as home, socket.socket(socket.AF_UNIX) as listening:
        where = find({"CLUSTERSH_HOME": home})
        private_folder(Path(where.folder))
        listening.bind(where.socket)
        listening.listen()
        listening.settimeout(30)
        calling = subprocess.Popen(words, env={"CLUSTERSH_HOME": home})
        try:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(30)
                said = spoken(connection)
                assert next(said) == (frames.HELLO, where.key)
                connection.sendall(frames.frame(frames.READY))
                assert next(said)[0] == frames.CALL
                assert next(said) == (frames.SIGNAL, frames.number(0, signal.SIGTERM)[5:])
                connection.sendall(frames.frame(frames.TOLD) + frames.number(frames.EXIT, 123))
                assert calling.wait(30) == 123
        finally:
            end(calling, signal.SIGKILL)


def spoken(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the frames that come."""
    taken = frames.Frames()
    while data := connection.recv(4096):
        yield from taken.feed(data)


def _caught(pid: int, number: int) -> bool:
    """Whether the signal *number* waits for that process no more."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return not (int(fields["ShdPnd"], 16) | int(fields["SigPnd"], 16)) >> (number - 1) & 1


def _interrupted(running: subprocess.Popen[bytes]) -> bool:
    """Press Ctrl-C once more, as somebody does who sees nothing happen; return whether it ended."""
    running.send_signal(signal.SIGINT)
    return running.poll() is not None
