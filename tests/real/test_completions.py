"""The Tab key in real shells: machines' names and recent uuids, from a real coordinator."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustersh.frontend.commands import COMMANDS

from ..conftest import ROOT
from .programs import BIN, PATIENCE_S, Cluster, Home, eventually, make_home

termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

COMPLETIONS = ROOT / "packaging" / "completions"
PROMPT = "ready> "
SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), f"PS1='{PROMPT}'; source {COMPLETIONS}/clustersh.bash"),
    "zsh": (
        ("zsh", "-f", "-i"),
        f"PS1='{PROMPT}'; bindkey -e; fpath=({COMPLETIONS} $fpath); autoload -U compinit; compinit -D -u",
    ),
}


class Terminal:
    """A shell at a terminal, and what it showed."""

    def __init__(self, words: tuple[str, ...], environ: dict[str, str], folder: Path) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
        self._shell = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=environ, cwd=folder, start_new_session=True
        )
        os.close(slave)
        self._shown = ""

    def type(self, keys: str) -> None:
        """Type *keys*, and forget what was shown before."""
        self._shown = ""
        os.write(self._master, keys.encode())

    def until(self, pattern: str) -> str:
        """Return what *pattern* matches (its first group) once that is shown."""
        return eventually(lambda: self._look(pattern), what=f"{pattern}: {self._shown}")

    def _look(self, pattern: str) -> str:
        if select.select([self._master], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                self._shown += os.read(self._master, 65536).decode("utf-8", "replace")
        found = re.search(pattern, self._shown)
        return found[1] if found else ""

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait(PATIENCE_S)
        os.close(self._master)


def environment(home: Home) -> dict[str, str]:
    return {**home.environment(), "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "xterm", "HISTFILE": ""}


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Terminal]:
    words, setting_up = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    terminal = Terminal(words, environment(cluster.client), tmp_path)
    try:
        terminal.type(f"{setting_up}; echo set-u''p\r")
        terminal.until("(set-up)")
        yield terminal
    finally:
        terminal.close()


def completed(terminal: Terminal, line: str, expected: str) -> str:
    """Return the words of *line* after the Tab key, which is to bring *expected*."""
    terminal.type(f"{line}\t")
    terminal.until(f"({re.escape(expected)})")
    terminal.type("\x01printf '<%s>' \r")
    return terminal.until(r"((?:<[^%<>]+>)+)")


@pytest.fixture(scope="module")
def uuid(cluster: Cluster) -> str:
    """A run that ended, and one that is newer."""
    for command in ("echo older", "echo newer"):
        assert cluster.sh("run", "ws1", command).status == 0
    return str(cluster.sh("history", "--json").json["jobs"][1]["uuid"])


def test_the_tab_key_completes_machines_and_uuids(terminal: Terminal, uuid: str) -> None:
    assert completed(terminal, "clustersh run w", "ws1") == "<clustersh><run><ws1>"
    assert completed(terminal, "clustersh run --timeout 5m --cwd / w", "ws1").endswith("</><ws1>")
    assert completed(terminal, "clustersh hist", "history") == "<clustersh><history>"
    assert completed(terminal, "clustersh run ws1,w", "ws1,ws1") == "<clustersh><run><ws1,ws1>"
    short = uuid[-8:]
    assert completed(terminal, f"clustersh wait {short[:4]}", short) == f"<clustersh><wait><{short}>"
    assert completed(terminal, f"clustersh cat ws1 {short[:4]}", short) == f"<clustersh><cat><ws1><{short}>"
    assert completed(terminal, f"clustersh cancel {uuid[:-3]}", uuid) == f"<clustersh><cancel><{uuid}>"


def test_the_tab_key_completes_groups(terminal: Terminal, grouped: Cluster) -> None:
    assert completed(terminal, "clustersh run @gro", "@group7") == "<clustersh><run><@group7>"
    assert completed(terminal, "clustersh targets all -x @gro", "@group7").endswith("<-x><@group7>")
    assert completed(terminal, "clustersh run ws1,@gro", "ws1,@group7").endswith("<ws1,@group7>")
    assert completed(terminal, "clustersh run @gpu:y", "@gpu:yes").endswith("<@gpu:yes>")
    assert completed(terminal, "clustersh run @os:li", "@os:linux").endswith("<@os:linux>")
    assert completed(terminal, "clustersh groups del", "delete").endswith("<groups><delete>")
    assert completed(terminal, "clustersh groups delete gro", "group7").endswith("<delete><group7>")


@pytest.fixture
def grouped(cluster: Cluster) -> Cluster:
    """A group and a label."""
    for words in (("groups", "add", "group7", "ws1"), ("label", "ws1", "gpu=yes")):
        assert cluster.sh(*words).status == 0
    return cluster


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_machines_groups_and_uuids(grouped: Cluster, uuid: str) -> None:
    cluster = grouped

    def candidates(line: str) -> list[str]:
        shown = subprocess.run(
            ["fish", "--no-config", "-c", f"source {COMPLETIONS}/clustersh.fish; complete -C '{line}'"],
            env=environment(cluster.client),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert shown.stderr == ""
        return shown.stdout.splitlines()

    newest = cluster.sh("history", "--json").json["jobs"][0]["uuid"]
    assert candidates("clustersh run w") == ["ws1"]
    assert candidates("clustersh run --timeout 5m --cwd / w") == ["ws1"]
    assert candidates("clustersh run @gro") == candidates("clustersh targets all -x @gro") == ["@group7"]
    assert candidates("clustersh run ws1,@os:") == ["ws1,@os:linux"]
    assert candidates("clustersh groups delete ") == ["group7"]
    assert candidates("clustersh hist") == ["history"]
    assert candidates("clustersh wait ") == [newest[-8:], uuid[-8:]]
    assert candidates(f"clustersh cat ws1 {uuid[-8:-3]}") == [uuid[-8:]]
    assert candidates(f"clustersh cancel {uuid[:-3]}") == [uuid]
    assert set(candidates("clustersh cat ")) == {"ws1", newest[-8:], uuid[-8:]}


def test_what_is_asked_for_is_printed_newest_first(cluster: Cluster, uuid: str) -> None:
    assert cluster.sh("__complete", "machines").out == "ws1\n"
    assert cluster.sh("__complete", "machines", "x").out == ""
    assert cluster.sh("__complete", "machines", "ws1!@o").out.splitlines()[:2] == ["ws1!@offline", "ws1!@online"]
    assert cluster.sh("__complete", "uuids").out.splitlines()[1] == uuid[-8:]
    assert cluster.sh("__complete", "uuids", uuid[:9]).out.splitlines()[1] == uuid


@pytest.mark.parametrize("words", [(), ("nonsense",), ("machines", "a", "b", "--json"), ("--help",)], ids=str)
def test_nonsense_is_answered_with_silence(cluster: Cluster, words: tuple[str, ...]) -> None:
    answer = cluster.sh("__complete", *words)
    assert (answer.status, answer.out, answer.err) == (0, "", "")


def test_whatever_is_wrong_is_silence(cluster: Cluster, tmp_path: Path) -> None:
    home = make_home(tmp_path, "stranger")
    strangers = home.sh("__complete", "machines")
    assert (strangers.status, strangers.out, strangers.err) == (0, "", "")
    shutil.copytree(cluster.client.path, home.path)
    assert home.sh("__complete", "machines").out == "ws1\n"
    (home.path / "client" / "login.json").write_text('{"coordinator": 7}')
    damaged = home.sh("__complete", "machines")
    assert (damaged.status, damaged.out, damaged.err) == (0, "", "")


def test_a_coordinator_that_hangs_is_not_waited_for(cluster: Cluster) -> None:
    cluster.coordinator_process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = cluster.sh("__complete", "machines")
        assert (answer.status, answer.out, answer.err) == (0, "", "")
        assert time.monotonic() - began < 5  # 0.7 s, and the start of a process on a machine that may be busy
    finally:
        cluster.coordinator_process.send_signal(signal.SIGCONT)
    cluster.until_status("ws1", "online")


@pytest.fixture(scope="module")
def with_values(cluster: Cluster) -> set[str]:
    """Every option that takes a value."""
    helps = "".join(cluster.sh(command, "--help").out for command in COMMANDS)
    found = set(re.findall(r"^  (--[a-z-]+) [A-Z]", helps, re.MULTILINE))
    assert {"--timeout", "--file", "--tail"} <= found
    return found


@pytest.mark.parametrize("name", ["clustersh.bash", "_clustersh", "clustersh.fish"])
def test_every_command_and_every_option_with_a_value_is_known(with_values: set[str], name: str) -> None:
    text = (COMPLETIONS / name).read_text()
    assert [command for command in COMMANDS if not re.search(rf"[ =\"']{command}[ \n\"']", text)] == []
    assert [option for option in sorted(with_values) if not re.search(rf"{option}[ |)\n]", text)] == []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_completion_for_bash() -> None:
    subprocess.run(["shellcheck", COMPLETIONS / "clustersh.bash"], check=True)
