"""Bytes, signals and terminals through a standby."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import signal
import subprocess
import termios
import threading
from pathlib import Path

import psutil
import pytest

from .programs import BIN, Cluster, end, eventually
from .standbys import Standby
from .terminals import OnTerminal

LARGE = 200 << 20


def shell(cluster: Cluster, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a bash whose PATH begins with our programs."""
    given = cluster.client.environment({"PATH": f"{BIN}:{os.environ['PATH']}", **environ})
    return subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True, timeout=60, check=False)


def test_a_large_output_is_whole_and_takes_no_memory(standing: Cluster, standby: Standby) -> None:
    process = psutil.Process(standby.pid)
    before = process.memory_info().rss
    running = standing.client.open("clustersh", "run", "--full", "ws1", f"head -c {LARGE} /dev/zero | tr '\\0' x")
    assert running.stdout is not None
    size, most, digest = 0, 0, hashlib.sha256()
    while piece := running.stdout.read(1 << 20):
        size += len(piece)
        digest.update(piece)
        most = max(most, process.memory_info().rss)
    assert running.wait(30) == 0
    assert (size, digest.digest()) == (LARGE, hashlib.sha256(b"x" * LARGE).digest())
    assert most - before < 48 << 20
    assert standby.runs()


def test_a_large_input_arrives(standing: Cluster, standby: Standby) -> None:
    data = os.urandom(8 << 20)
    answer = standing.sh("run", "--stdin", "ws1", "sha256sum", stdin=data)
    assert answer.out.split()[0] == hashlib.sha256(data).hexdigest()


def test_input_goes_on_while_nobody_reads_the_output(standing: Cluster, standby: Standby) -> None:
    """A caller may write all of its input before it reads: what would wait for the other must not."""
    data = os.urandom(4 << 20)
    running = standing.client.open("clustersh", "run", "--stdin", "--full", "ws1", "cat", stdin=subprocess.PIPE)
    assert running.stdin is not None and running.stdout is not None
    running.stdin.write(data)
    running.stdin.close()
    assert running.stdout.read() == data
    assert running.wait(30) == 0


def test_a_slow_reader_delays_nobody(standing: Cluster, standby: Standby) -> None:
    slow = standing.client.open("clustersh", "run", "--full", "ws1", f"head -c {LARGE} /dev/zero")
    try:
        assert slow.stdout is not None and slow.stdout.read(1) == b"\0"
        before = standby.calls
        quick = sorted(standing.sh("run", "ws1", "echo quick").seconds for _ in range(5))
        assert quick[2] < 2
        assert standby.calls == before + 5
        assert slow.poll() is None
    finally:
        end(slow, signal.SIGKILL)


def test_a_reader_at_full_speed_delays_nobody(standing: Cluster, standby: Standby) -> None:
    """One `cat` of a large output after the other, for as long as the quick ones take."""
    uuid = standing.sh("run", "--detach", "ws1", f"head -c {LARGE} /dev/zero").out.strip()
    standing.until_job(uuid, "completed")
    enough, statuses, size = threading.Event(), set[int](), 0

    def read() -> None:
        nonlocal size
        while not enough.is_set():
            reading = standing.client.open("clustersh", "cat", uuid)
            assert reading.stdout is not None
            while piece := os.read(reading.stdout.fileno(), 1 << 20):
                size += len(piece)
            statuses.add(reading.wait(30))
            end(reading)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        before, seconds = standby.calls, list[float]()
        for _ in range(5):
            had = size
            eventually(lambda had=had: size > had, what="more of the large output")
            quick = standing.sh("run", "ws1", "echo quick")
            assert (quick.status, quick.out, quick.err) == (0, "quick\n", "")
            seconds.append(quick.seconds)
        assert sorted(seconds)[2] < 2
        assert standby.calls >= before + 5
    finally:
        enough.set()
        reader.join(60)
    assert statuses == {0} and size % LARGE == 0


def test_a_reader_that_stops_ends_it_quietly(standing: Cluster, standby: Standby) -> None:
    script = 'clustersh run --full ws1 "seq 3000000" | head -n 1; echo "${PIPESTATUS[0]}"'
    assert shell(standing, script).stdout == "1\n141\n"
    assert shell(standing, script, CLUSTERSH_STANDBY="off").stdout == "1\n141\n"
    assert shell(standing, "clustersh machines >/dev/full; echo $?").stdout == "123\n"
    assert "can't write the output: No space left" in shell(standing, "clustersh machines >/dev/full").stderr
    assert shell(standing, "clustersh run ws1 'echo x' >&-; echo $?").stdout == "0\n"


def test_the_callers_descriptors_keep_their_flags(standing: Cluster, standby: Standby) -> None:
    ours, theirs = os.pipe()
    before = fcntl.fcntl(theirs, fcntl.F_GETFL)
    running = subprocess.Popen(
        [BIN / "clustersh", "run", "--full", "ws1", "head -c 1000000 /dev/zero"],
        env=standing.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
    )
    seen, size = set[int](), 0
    while size < 1_000_000:
        seen.add(fcntl.fcntl(theirs, fcntl.F_GETFL))
        size += len(os.read(ours, 4096))
    assert running.wait(30) == 0
    assert seen | {fcntl.fcntl(theirs, fcntl.F_GETFL)} == {before}
    os.set_blocking(theirs, False)  # the caller's own choice is no trouble, and stays
    done = subprocess.Popen(
        [BIN / "clustersh", "run", "--full", "ws1", "head -c 1000000 /dev/zero"],
        env=standing.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
    )
    size = 0
    while size < 1_000_000:
        size += len(os.read(ours, 4096))
    assert done.wait(30) == 0 and not os.get_blocking(theirs)
    os.close(ours)
    os.close(theirs)


def test_an_interrupt_cancels_and_another_leaves(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    running = standing.client.open("clustersh", "run", "ws1", f"touch {begun}; sleep 60")
    eventually(begun.exists)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, b"")
    assert b"Cancelling the command; interrupt again to leave at once.\n" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_leave_the_job_running(
    standing: Cluster, standby: Standby, tmp_path: Path, number: signal.Signals
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go"
    command = f"touch {begun}; until [ -e {go_on} ]; do sleep 0.05; done; echo went on"
    running = standing.client.open("clustersh", "run", "ws1", command)
    eventually(begun.exists)
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 123
    uuid = err.decode().split("hint: still running, clustersh wait ")[1].strip()
    go_on.touch()
    assert standing.sh("wait", uuid).out == "went on\n"


def test_what_the_caller_ignores_stays_ignored(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go"
    command = f"touch {begun}; until [ -e {go_on} ]; do sleep 0.05; done; echo went on"
    running = subprocess.Popen(
        ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", BIN / "clustersh", "run", "ws1", command],
        env=standing.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    eventually(begun.exists)
    running.send_signal(signal.SIGHUP)
    go_on.touch()
    assert running.communicate(timeout=30)[0] == b"went on\n"


def test_a_caller_that_is_killed_leaves_nothing_behind(standing: Cluster, standby: Standby, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    running = standing.client.open("clustersh", "run", "ws1", f"touch {begun}; sleep 1; echo went on")
    eventually(begun.exists)
    end(running, signal.SIGKILL)
    eventually(lambda: (standby.state() or {"running": 1})["running"] == 0)
    newest = standing.sh("history", "--limit", "1", "--json").json["jobs"][0]
    assert standing.sh("wait", newest["uuid"]).out == "went on\n"


def test_a_terminal_is_drawn_on_and_its_size_followed(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    shown = OnTerminal(standing.client, "machines", "-l", "--watch", columns=60)
    narrow = shown.until("ws1")
    assert "version" not in narrow
    shown.resize(200, 30)
    assert "version" in shown.until("version")
    shown.press("\x03")
    assert shown.end() == 0
    assert shown.seen.endswith("\x1b[?1049l"), "the terminal is left as it was found"
    assert standby.calls == before + 1


def test_errors_are_red_on_a_terminal_only(standing: Cluster, standby: Standby) -> None:
    ours, theirs = pty.openpty()
    flags, modes = fcntl.fcntl(theirs, fcntl.F_GETFL), termios.tcgetattr(theirs)
    failed = subprocess.run(
        [BIN / "clustersh", "run", "nowhere", "true"],
        env=standing.client.environment({"TERM": "xterm"}),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    assert failed.returncode == 125
    assert os.read(ours, 4096).startswith(b"\x1b[31mERROR:\x1b[0m no machine")
    assert (fcntl.fcntl(theirs, fcntl.F_GETFL), termios.tcgetattr(theirs)) == (flags, modes)
    os.close(ours)
    os.close(theirs)


def test_what_a_word_names_of_the_callers_own_process_is_found(standing: Cluster, standby: Standby) -> None:
    assert shell(standing, "clustersh run --script <(echo 'echo from a pipe') ws1").stdout == "from a pipe\n"
    assert shell(standing, "echo 'echo by stdin' | clustersh run --script - ws1").stdout == "by stdin\n"
    assert shell(standing, "cd /tmp && echo here > $$ && clustersh run --file $$ ws1 cat $$; rm $$").stdout == "here\n"


def test_completion_goes_through_it(standing: Cluster, standby: Standby) -> None:
    before = standby.calls
    assert standing.sh("__complete", "machines", "w").out == "ws1\n"
    assert standing.sh("__complete", "groups", "x").out == ""
    assert standing.sh("__complete", "nonsense").status == 0
    assert standby.calls == before + 3
