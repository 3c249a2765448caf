"""A standby that is dead, hung, another one's or not there: nothing runs twice, and nobody else gets in."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from clustersh.frontend.standby import frames
from clustersh.frontend.standby.place import find

from ..faults.users import as_user
from .programs import BIN, Cluster, eventually
from .standbys import Standby, standbys_of, waited


def answer_to(path: Path, *messages: bytes) -> bytes:
    """Send *messages* to the standby at *path*, and return all that it says."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        received = b""
        try:
            for message in messages:
                connection.sendall(message)
            while data := connection.recv(4096):
                received += data
        except ConnectionError:
            pass
        return received


PROGRAM = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    try:
        connection.sendall(bytes.fromhex(sys.argv[2]))
        print(connection.recv(9))
    except ConnectionError:
        print(b"")
"""


def hello_of(before: Sequence[str], path: Path, key: bytes) -> str:
    """Return what a program says, started by the words *before*, that got as answer to a hello with *key*."""
    words = [*before, sys.executable, "-c", PROGRAM, str(path), frames.frame(frames.HELLO, key).hex()]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def until(path: Path) -> None:
    eventually(lambda: path.exists() and path.read_text(), what=f"{path}")


def test_one_that_is_killed_in_mid_command_runs_nothing_twice(
    standing: Cluster, standby: Standby, tmp_path: Path
) -> None:
    count, go_on = tmp_path / "count", tmp_path / "go"
    command = f"echo x >> {count}; until [ -e {go_on} ]; do sleep 0.05; done; echo done; exit 4"
    running = standing.client.open("clustersh", "run", "ws1", command)
    until(count)
    os.kill(standby.pid, signal.SIGKILL)
    go_on.touch()
    assert running.communicate(timeout=60) == (b"done\n", b"")
    assert (running.returncode, count.read_text()) == (4, "x\n")


def test_one_that_is_killed_amid_output_says_what_is_known(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    count, go_on = tmp_path / "count", tmp_path / "go"
    command = f"echo x | tee -a {count}; until [ -e {go_on} ]; do sleep 0.05; done; echo done"
    running = standing.client.open("clustersh", "run", "--follow", "ws1", command)
    assert running.stdout is not None and running.stdout.read(2) == b"x\n"
    os.kill(standby.pid, signal.SIGKILL)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (123, b"")
    lines = err.decode().splitlines()
    assert lines[0] == "ERROR: the standby ended in the midst of the command"
    key = lines[1].removeprefix("hint: the same clustersh run with --key ").split()[0]
    go_on.touch()
    assert standing.sh("run", "--key", key, "ws1", command).out == "x\ndone\n"
    assert count.read_text() == "x\n"


def test_one_that_is_killed_before_a_change_was_answered_leaves_it_to_the_user(
    standing: Cluster, standby: Standby
) -> None:
    """Whether the change was made is not known, so it isn't made again."""
    os.kill(standing.coordinator_process.pid, signal.SIGSTOP)
    try:
        running = standing.client.open("clustersh", "groups", "add", "lost", "ws1", "--json")
        eventually(lambda: (standby.state() or {"running": 0})["running"])
        os.kill(standby.pid, signal.SIGKILL)
        out, err = running.communicate(timeout=30)
    finally:
        os.kill(standing.coordinator_process.pid, signal.SIGCONT)
    assert running.returncode == 123
    assert b'"started":null' in out and b"look before you repeat it: clustersh groups may have been done" in err
    standing.until_status("ws1", "online")


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process is told by /proc")
def test_one_that_is_stopped_is_gone_around_and_does_nothing_later(
    standing: Cluster, standby: Standby, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    before = standby.calls
    os.kill(standby.pid, signal.SIGSTOP)
    try:
        answer, waits = waited(standing, tmp_path, "run", "ws1", f"echo x >> {count}")
        assert answer.status == 0
        assert waits == [0.02, 0.02], "the moment in which it might have answered"
        assert standing.sh("standby").out == (
            f"process {standby.pid} does not answer; clustersh standby stop ends it\n"
        )
    finally:
        os.kill(standby.pid, signal.SIGCONT)
    assert standing.sh("run", "ws1", "true").status == 0
    assert standby.calls == before + 1
    assert count.read_text() == "x\n"


def test_one_that_is_hung_is_ended_by_stop(standing: Cluster, standby: Standby) -> None:
    os.kill(standby.pid, signal.SIGSTOP)
    assert standing.sh("standby", "stop").out == f"Stopped {standby.pid}.\n"
    assert not standby.runs()


def test_one_that_says_nothing_is_given_up(standing: Cluster, standby: Standby) -> None:
    """Somebody else's program at the socket, of the same user: it listens, and never answers."""
    path = standby.socket
    standing.sh("standby", "stop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = standing.sh("run", "ws1", "echo x")
        assert (answer.status, answer.out, answer.err) == (0, "x\n", "")
    path.unlink()


def test_a_dead_ones_socket_is_in_nobodys_way(standing: Cluster, standby: Standby) -> None:
    os.kill(standby.pid, signal.SIGKILL)
    eventually(lambda: not standby.runs())
    assert any(path.is_socket() for path in standby.folder.iterdir())
    answer = standing.sh("run", "ws1", "echo x")
    assert (answer.status, answer.out, answer.err) == (0, "x\n", "")
    assert standby.again() and standby.calls == 0


def test_it_answers_nobody_of_another_version_or_home(standing: Cluster, standby: Standby) -> None:
    path, environ = standby.socket, standing.client.environment()
    key = find(environ).key
    assert answer_to(path, frames.frame(frames.HELLO, key.replace(b"0.1.0", b"0.1.1", 1))) == b""
    assert answer_to(path, frames.frame(frames.HELLO, find({**environ, "CLUSTERSH_HOME": "/elsewhere"}).key)) == b""
    assert answer_to(path, frames.frame(frames.CALL, b"no hello before it")) == b""
    assert answer_to(path, b"\xff" * 5000) == b""
    ready = frames.frame(frames.READY)
    assert answer_to(path, frames.frame(frames.HELLO, key), b"\xff" * 5000) in (ready, b"")
    assert standby.runs()
    assert standing.sh("run", "ws1", "echo x").out == "x\n"


def test_who_says_nothing_is_hung_up_on(standby: Standby) -> None:
    assert answer_to(standby.socket) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights")
def test_it_answers_no_other_user(standing: Cluster, standby: Standby) -> None:
    """Even where the folder was opened to all, which the launcher would refuse."""
    path, key = standby.socket, find(standing.client.environment()).key
    opened = (standing.client.runtime, path.parent)
    try:
        for folder in opened:
            folder.chmod(0o755)
        path.chmod(0o777)
        assert hello_of((), path, key) == repr(frames.frame(frames.READY))
        assert hello_of(as_user(), path, key) == "b''"
        before = standby.calls
        assert standing.sh("run", "ws1", "echo x").out == "x\n"
        assert standby.calls == before, "a folder that is open to others is not trusted"
    finally:
        for folder in opened:
            folder.chmod(0o700)
        path.chmod(0o600)


LISTENER = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("listens", flush=True)
    with listener.accept()[0] as connection:
        print(connection.recv(100), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights")
def test_another_users_program_at_the_socket_is_told_nothing(standing: Cluster, standby: Standby) -> None:
    """Even where it got into the folder, as somebody might who had it open for a moment."""
    path = standby.socket
    standing.sh("standby", "stop")
    path.unlink(missing_ok=True)
    opened = (standing.client.runtime, path.parent)
    words = [*as_user(), sys.executable, "-c", LISTENER, str(path)]
    try:
        for folder in opened:
            folder.chmod(0o777)
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listener:
            try:
                assert listener.stdout is not None and listener.stdout.readline() == "listens\n"
                for folder in opened:
                    folder.chmod(0o700)
                answer = standing.sh("run", "ws1", "echo x")
                assert (answer.status, answer.out, answer.err) == (0, "x\n", "")
                assert listener.stdout.readline() == "b''\n", "it was connected to, and told nothing"
            finally:
                listener.kill()
    finally:
        for folder in opened:
            folder.chmod(0o700)
        path.unlink(missing_ok=True)


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are told by /proc")
def test_a_sandbox_that_kills_all_that_is_left_costs_nothing(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    wait = f"until {BIN}/clustersh standby --json | grep -q running.:true; do sleep 0.05; done"
    script = f"{BIN}/clustersh run ws1 'echo x'; {wait}; {BIN}/clustersh run ws1 'echo y'; echo ends"
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    for _ in range(2):  # what the first one leaves is in no later one's way
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--kill-child", *user, "bash", "-c", script],
            env=standing.client.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "x\ny\nends\n", "")
        eventually(lambda: standbys_of(standing) == [standby.pid], what="the end of the sandbox's own")
    assert standby.calls == before
    assert standing.sh("run", "ws1", "echo x").out == "x\n"
    assert standby.calls == before + 1


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are told by /proc")
def test_a_sandbox_can_not_make_up_a_hello(standing: Cluster, standby: Standby) -> None:
    """What it says of itself is what a program outside of it would say: the kernel knows better."""
    path, key = standby.socket, find(standing.client.environment()).key
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    assert hello_of((), path, key) == repr(frames.frame(frames.READY))
    for sandbox in (["setpriv", "--no-new-privs"], ["unshare", "--mount", *user], ["unshare", "--net", *user]):
        assert hello_of(sandbox, path, key) == "b''", sandbox


def test_one_callers_environment_is_no_others(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    command = ("run", "--env", "SECRET", "ws1", "echo $SECRET")
    assert standing.sh(*command, environ={"SECRET": "one"}).out == "one\n"
    assert standing.sh(*command, environ={"SECRET": "two"}).out == "two\n"
    refused = standing.sh(*command)
    assert (refused.status, refused.err.splitlines()[0]) == (125, "ERROR: --env SECRET: there is no such variable here")
    assert (
        standing.sh("run", "--wait", "9s", "--env=SECRET", "ws1", "echo $SECRET", environ={"SECRET": "x"}).out == "x\n"
    )
    assert standby.calls == before + 4
    log = next(path for path in standby.folder.iterdir() if path.suffix == ".log")
    assert log.read_text() == ""


def test_many_callers_at_once(standing: Cluster, standby: Standby) -> None:
    before, failed = standby.calls, list[object]()

    def call(number: int) -> None:
        for turn in range(3):
            words = f"{number}.{turn}"
            answer = standing.sh("run", "--env", "N", "ws1", "echo $N; exit 7", environ={"N": words})
            if (answer.status, answer.out, answer.err) != (7, f"{words}\n", ""):
                failed.append(answer)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failed == []
    assert standby.calls == before + 60


@pytest.fixture
def nowhere(standing: Cluster) -> Iterator[Path]:
    """The place of the sockets, before there are any."""
    standing.sh("standby", "stop")
    folder = standing.client.runtime / "elsewhere"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def test_where_no_socket_can_be_all_goes_on_without(standing: Cluster, nowhere: Path) -> None:
    long = nowhere / ("long" * 30)
    long.mkdir()
    a_file = nowhere / "file"
    a_file.mkdir()
    (a_file / "clustersh").touch()
    opened = nowhere / "open"
    (opened / "clustersh").mkdir(parents=True)
    (opened / "clustersh").chmod(0o755)
    for folder in (long, a_file, opened):
        for _ in range(2):
            answer = standing.sh("run", "ws1", "echo x", environ={"XDG_RUNTIME_DIR": str(folder)})
            assert (answer.status, answer.out, answer.err) == (0, "x\n", ""), folder
        assert standing.sh("standby", environ={"XDG_RUNTIME_DIR": str(folder)}).out == "no standby runs\n"
        assert not any(path.is_socket() for path in folder.rglob("*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a mount namespace")
def test_a_read_only_folder_is_no_trouble(standing: Cluster, nowhere: Path) -> None:
    script = f'mount -t tmpfs -o ro none {nowhere}; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", BIN / "clustersh", "run", "ws1", "echo x"],
        env=standing.client.environment({"XDG_RUNTIME_DIR": str(nowhere)}),
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"x\n", b"")


def test_a_system_without_unix_sockets(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    program = "import sys, _socket; del _socket.AF_UNIX; from clustersh.frontend.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "ws1", "echo x"],
        env=standing.client.environment(),
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"x\n", b"")
    assert standby.calls == before
