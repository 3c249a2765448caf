"""``clustersh`` and several real machines: as docs/many-machines.md shows it, on a terminal, and while things end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .examples import UUID, check_example, examples_of
from .many import Fleet, make_fleet
from .programs import BIN, PATIENCE_S, end, eventually
from .test_quick import imported

NAMES = ("web01", "web02", "web03", "db1", "sleeper")
EXAMPLES = examples_of("many-machines.md")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    try:
        assert made.sh("run", ",".join(NAMES), "true").status == 0  # who was named is not new any more
        made.stop_agent("sleeper")
        for name, release in (("web01", 7), ("web02", 7), ("web03", 6)):
            (made.agents[name].path.parent / "release").write_text(f"release {release}\n")
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition("\n")[0][:60])
def test_the_documented_examples(fleet: Fleet, example: str, tmp_path: Path) -> None:
    check_example(fleet, example, tmp_path)


def test_the_quick_way_needs_no_reactor(fleet: Fleet) -> None:
    once = imported(fleet, "run", "web01,web02", "true")
    assert "ClusterShell" in once and not {"twisted", "treq", "OpenSSL"} & once
    assert "twisted" in imported(fleet, "run", "--follow", "web01,web02", "true")


def test_a_command_that_can_begin_nowhere_has_not_run(fleet: Fleet) -> None:
    answer = fleet.sh("run", "web01,web02", "--cwd", "/no/such/folder", "true")
    assert (answer.status, answer.out) == (125, "")
    assert answer.err == (
        "ERROR: nothing ran: the command did not start on any of web[01-02]\n"
        "hint: nothing ran; --cwd takes a directory that is on web[01-02] and that its agent's user may enter\n"
        "2 not started (web[01-02]: no such directory: /no/such/folder)\n"
    )


def test_a_longer_run_is_taken_up_and_not_run_again(fleet: Fleet, tmp_path: Path) -> None:
    count = tmp_path / "count"
    answer = fleet.sh("run", "web01,web02", f"echo x >> {count}; sleep 2.5; echo done")
    assert (answer.status, answer.out, answer.err) == (0, "web[01-02] (2)\ndone\n", "2 completed\n")
    assert count.read_text() == "x\nx\n"


def test_large_and_binary_outputs(fleet: Fleet, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "data").write_bytes(data)
    answer = fleet.sh("run", "--full", "web01,web02", f"cat {tmp_path / 'data'}")
    assert answer.status == 0
    assert answer.stdout == b"web[01-02] (2)\n" + data + (b"" if data.endswith(b"\n") else b"\n")
    cut = fleet.sh("run", "--limit", "1000", "web01,web02", f"cat {tmp_path / 'data'}")
    assert cut.status == 123
    whole = fleet.sh("cat", UUID.findall(cut.err)[0])
    assert whole.stdout == answer.stdout
    together = fleet.sh("run", "--limit", "1MiB", "-o", "json", "web01,web02", f"base64 {tmp_path / 'data'}").json
    assert [job["truncated"] for job in together["jobs"]] == [False, False]
    assert {len(job["stdout"]) for job in together["jobs"]} == {together["jobs"][0]["output_bytes"]}


def test_each_line_of_jsonl_comes_as_its_job_ends(fleet: Fleet, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"case $PWD in *web02) while ! test -e {go}; do sleep 0.05; done;; esac; echo ended"
    process = fleet.client.open("clustersh", "run", "-o", "jsonl", "web[01-03]", command)
    assert process.stdout is not None
    try:
        early = {json.loads(process.stdout.readline())["machine"] for _ in range(2)}
        go.touch()
        late = json.loads(process.stdout.readline())
        assert (early, late["machine"], late["stdout"]) == ({"web01", "web03"}, "web02", "ended\n")
        assert process.wait(PATIENCE_S) == 0
    finally:
        end(process)


def test_follow_is_live(fleet: Fleet, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"echo first; while ! test -e {go}; do sleep 0.05; done; echo second; exit 5"
    process = fleet.client.open("clustersh", "run", "--follow", "web01,web02", command)
    assert process.stdout is not None
    try:
        assert {process.stdout.readline() for _ in range(2)} == {b"web01: first\n", b"web02: first\n"}
        go.touch()
        rest, err = process.communicate(timeout=PATIENCE_S)
        assert sorted(rest.splitlines()) == [b"web01: second", b"web02: second"]
        assert (process.returncode, err) == (1, b"2 failed (web[01-02]: exit 5)\n")
    finally:
        end(process)


def test_an_interrupt_cancels_on_every_machine(fleet: Fleet) -> None:
    process = fleet.client.open("clustersh", "run", "web[01-03]", "sleep 304")
    try:
        eventually(lambda: _running(fleet, "sleep 304") == 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        end(process)
    assert process.returncode == 130
    assert out == b"web[01-03] (3): cancelled, no output\n"
    assert re.fullmatch(
        r"Cancelling the command( on 3 machines)?; interrupt again to leave at once\.\n3 cancelled \(web\[01-03\]\)\n",
        err.decode(),
    )
    assert _running(fleet, "sleep 304") == 0


def test_a_hangup_leaves_it_running(fleet: Fleet) -> None:
    process = fleet.client.open("clustersh", "run", "web[01-03]", "sleep 305")
    try:
        eventually(lambda: _running(fleet, "sleep 305") == 3)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        end(process)
    assert process.returncode == 123
    assert _running(fleet, "sleep 305") == 3
    assert fleet.sh("cancel", UUID.findall(err.decode())[0]).status == 0


def _running(fleet: Fleet, command: str) -> int:
    jobs = fleet.sh("history", "--json", "--status", "running").json["jobs"]
    return sum(job["command"] == command and job["status"] == "running" for job in jobs)


def test_history_and_the_overview_have_a_run_once(fleet: Fleet) -> None:
    process = fleet.client.open("clustersh", "run", "web[01-03]", "sleep 306")
    try:
        eventually(lambda: _running(fleet, "sleep 306") == 3)
        assert "on web[01-03] (3): sleep 306 | running for " in fleet.sh().out
        rows = [row for row in fleet.sh("history").out.splitlines() if "sleep 306" in row]
        assert [[cell.strip() for cell in row.split(" | ")[3:]] for row in rows] == [["3 still running", "web[01-03]"]]
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
    finally:
        end(process)


def test_machines_are_left_out_of_what_is_looked_up_and_ended(fleet: Fleet) -> None:
    uuid = fleet.sh("run", "--detach", "web[01-03]", "echo left; sleep 307").out.strip()
    eventually(lambda: _running(fleet, "echo left; sleep 307") == 3)
    would = fleet.sh("cancel", "--dry-run", "web*", "-x", "web02", uuid).out
    assert would == f"This would cancel {uuid} on web[01,03] (2); dry run: nothing was done.\n"
    assert fleet.sh("cancel", "-x", "web02", uuid).out == "Command cancelled on web[01,03] (2).\n"
    left = "web02: still running\nleft\nweb03: cancelled\nleft\n"
    eventually(lambda: fleet.sh("cat", "-x", "web01", uuid).out == left)
    assert fleet.sh("cat", "--exclude", "web01", "web[01-02]", uuid).out == "web02: still running\nleft\n"
    last = ("--limit", "1", "--json")
    for words, there in ((("-x", "web02,db1"), "web01 web03"), (("web*", "-x", "web[02-03]"), "web01")):
        jobs = fleet.sh("history", *words, *last).json["jobs"]
        assert [(job["uuid"], job["machine"]) for job in jobs] == [(uuid, name) for name in there.split()]
    assert fleet.sh("cancel", "-x", "web01,web03", uuid).out == "Command cancelled.\n"
    for words in (("cat", "-x", "web[01-03]", uuid), ("cancel", "-x", "web*", uuid)):
        answer = fleet.sh(*words)
        assert (answer.status, answer.out) == (125, "")
        assert answer.err == (f"ERROR: nothing of {uuid} is left without {words[2]!r}\nhint: it was for web[01-03]\n")
    answer = fleet.sh("history", "-x", "wbe01")
    assert (answer.status, answer.err.splitlines()[0]) == (125, "ERROR: no machine is called 'wbe01'")


class Terminal:
    """A program on a terminal of its own; *seen* is all that it wrote there."""

    def __init__(self, fleet: Fleet, *words: str, **environ: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.execve(words[0], words, {**fleet.client.environment(), "TERM": "xterm", **environ})
        self.seen = b""

    def until(self, text: bytes) -> None:
        """Read until *text* came."""
        eventually(lambda: self._read() and text in self.seen, what=f"{text!r} in {self.seen!r}")

    def rest(self) -> int:
        """Read to the end; return the exit status."""
        while self._read(PATIENCE_S):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self, seconds: float = 0.1) -> bool:
        """Read what there is; False at the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the terminal's other end is closed
            return False
        self.seen += data
        return bool(data)

    def close(self) -> None:
        os.close(self._master)


@pytest.fixture
def terminal(fleet: Fleet) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


def test_progress_on_a_terminal_is_gone_before_the_output(
    fleet: Fleet, terminal: list[Terminal], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    command = f"case $PWD in *web02) while ! test -e {go}; do sleep 0.05; done;; esac; echo ended"
    shown = Terminal(fleet, str(BIN / "clustersh"), "run", "web[01-03]", command)
    terminal.append(shown)
    shown.until(b"\r\x1b[K2 of 3 ended; running: web02")
    go.touch()
    assert shown.rest() == 0
    last = shown.seen.rpartition(b"running: web02")[2]
    assert last == b"\r\x1b[Kweb[01-03] (3)\r\nended\r\n3 completed\r\n"


@pytest.mark.parametrize("how", ["dumb", "piped", "json"])
def test_no_progress_elsewhere(fleet: Fleet, terminal: list[Terminal], how: str) -> None:
    words = [str(BIN / "clustersh"), "run", *(["--json"] if how == "json" else []), "web[01-02]", "sleep 3; echo ended"]
    if how == "piped":
        words = ["/bin/bash", "-c", f"{shlex.join(words)} | cat"]
    shown = Terminal(fleet, *words, **({"TERM": "dumb"} if how == "dumb" else {}))
    terminal.append(shown)
    shown.rest()
    assert b"ended" in shown.seen and b"\x1b" not in shown.seen and b"running:" not in shown.seen
