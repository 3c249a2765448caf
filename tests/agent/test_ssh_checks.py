"""The checks that a shell makes on a machine that only has ssh: by each shell, with the few programs there are."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustersh.agent.executors import ExecutorError
from clustersh.agent.ssh.checks import SCRIPT, is_probe, words_for
from clustersh.wire.checks import Checked, decode_answer
from clustersh.wire.jobs import PROBE
from tests.probe.servers import http_server

SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]
BASE = ("awk", "cut", "date", "df", "echo", "head", "sed", "sh", "sleep", "sort", "tail", "tr")
pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")]


def check(*words: str, shell: str = "sh", path: Path | None = None) -> tuple[Checked, ...]:
    """Make the checks; the status has to agree with what is told."""
    argv = [str(shutil.which(shell)), "-c", SCRIPT, "probe", *words_for((*PROBE, *words))]
    environ = {"PATH": str(path)} if path else None
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, env=environ, check=False)
    answer = decode_answer(done.stdout)
    assert done.returncode == (0 if all(one.ok for one in answer) else 1)
    return answer


@pytest.fixture
def only(tmp_path: Path) -> Iterator[Path]:
    """A PATH with what every system has."""
    for name in BASE:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    yield tmp_path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http_server() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_passes(shell: str, url: str) -> None:
    port = url.rpartition(":")[2]
    found = check(
        *("--http", f"{url}/status/204", "--http", f"{url}/to?{url}/status/200", "--tcp", f"127.0.0.1:{port}"),
        *("--disk", "/ < 100%", "--disk", "/ > 1MB free", "--disk", "~ > 0% free", "--command", "exit 0"),
        shell=shell,
    )
    assert [one.ok for one in found] == [True] * 7, found
    assert [one.said for one in found[:3]] == ["204", "200", "connected"]
    assert found[3].said.endswith(" free") and "% used, " in found[3].said and found[6].said == "exit 0"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_fails_says_why(shell: str, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    checks = {
        ("--http", f"{url}/status/503"): "503",
        ("--http", f"{url}/loop"): "more than 5 redirects",
        ("--http", f"http://127.0.0.1:{port}/"): "onnect",
        ("--tcp", f"127.0.0.1:{port}"): "Connection refused",
        ("--disk", "/ < 0%"): "% used, ",
        ("--disk", "/ > 900000TB free"): "% used, ",
        ("--disk", "/no/such/place < 90%"): "No such file or directory",
        ("--command", "printf '%s\\n\\n' 'not \\ \"yet\"'; exit 7"): 'exit 7: not \\ "yet"',
        ("--command", "printf 'a\\tü\\n' >&2; exit 1"): "exit 1: a???",
    }
    found = check(*(word for one in checks for word in one), shell=shell)
    assert not any(one.ok for one in found), found
    for one, words in zip(found, checks.values(), strict=True):
        assert words in one.said, one


@pytest.mark.parametrize("shell", SHELLS)
def test_each_has_its_time_and_what_is_left_in_the_background_is_not_waited_for(shell: str) -> None:
    begun = time.monotonic()
    slow = ("--command", "echo so far; sleep 300")
    found = check("--timeout", "1s", *slow, *slow, "--command", "sleep 300 & echo '\"left\"'; exit 3", shell=shell)
    assert [one.said for one in found] == ["still ran after 1s: so far"] * 2 + ['exit 3: "left"']
    assert time.monotonic() - begun < 30, "they are made at once"


def test_a_body_without_an_end_passes_and_silence_does_not(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = check("--timeout", "1s", "--http", f"{url}/endless", "--http", f"http://127.0.0.1:{port}/")
    assert found == (Checked(True, "200"), Checked(False, "no answer within 1s"))


def test_without_any_program_that_could_it_says_so(only: Path) -> None:
    found = check("--http", "http://localhost/", "--tcp", "1", "--service", "x", "--command", "exit 4", path=only)
    assert [one.said for one in found] == [
        "there is neither curl nor wget on it",
        "there is neither bash nor nc on it",
        "nothing manages services here that could be asked",
        "exit 4",
    ]


@pytest.mark.skipif(shutil.which("wget") is None, reason="needs wget")
def test_wget_does_where_there_is_no_curl(only: Path, url: str) -> None:
    (only / "wget").symlink_to(str(shutil.which("wget")))
    good, bad = check("--http", f"{url}/status/200", "--http", f"{url}/status/503", path=only)
    assert good == Checked(True, "answered") and not bad.ok and "503" in bad.said


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
def test_perl_keeps_the_time_where_there_is_no_timeout(only: Path) -> None:
    (only / "perl").symlink_to(str(shutil.which("perl")))
    (found,) = check("--timeout", "1s", "--command", "exec sleep 300", path=only)
    assert found == Checked(False, "still ran after 1s")


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (("LoadState=loaded", "ActiveState=active", "SubState=running"), (True, "active (running)")),
        (("LoadState=loaded", "ActiveState=failed", "SubState=failed"), (False, "failed (failed)")),
        (("LoadState=not-found", "ActiveState=inactive", "SubState=dead"), (False, "systemd knows no such unit")),
    ],
)
def test_what_systemd_says_of_a_service(only: Path, kept: tuple[str, ...], words: tuple[bool, str]) -> None:
    asked = only / "asked"
    lines = "".join(f"echo {each}\n" for each in kept)
    (only / "systemctl").write_text(f'#!{shutil.which("sh")}\necho "$*" >>"{asked}"\n{lines}')
    (only / "systemctl").chmod(0o755)
    assert check("--service", "nginx", path=only) == (Checked(*words),)
    assert asked.read_text().splitlines()[0].endswith("-- nginx")


def test_words_that_make_no_sense_are_refused() -> None:
    for words in (("--disk", "var"), ("--nothing", "x"), ("--tcp",), ("--timeout", "soon")):
        with pytest.raises(ExecutorError):
            words_for((*PROBE, *words))
    assert is_probe((*PROBE, "--tcp", "1")) and not is_probe(("clusteragent",)) and not is_probe(None)
    assert words_for((*PROBE, "--timeout", "1500ms", "--tcp", "[::1]:5", "--disk", "/ > 1kB free")) == [
        *("2", "tcp", "::1", "5", "", "disk", "/", "bytes", "1000")
    ]
