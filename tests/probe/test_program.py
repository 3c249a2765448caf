"""The probe as a program: what it prints, how it ends, what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import pytest

from clustersh.probe import probe as probe_module
from clustersh.probe.grammar import READERS
from clustersh.probe.probe import MAX_SAID, Found, as_line, probe
from clustersh.wire.checks import MAX_ANSWER, decode_answer

from .servers import http_server


def run(*words: str, cwd=None, environ=None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-m", "clustersh.probe", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=cwd, env=environ)


def test_without_checks_it_answers_that_it_runs():
    ended = run()
    assert (ended.returncode, json.loads(ended.stdout), ended.stderr) == (0, {"checks": []}, "")


def test_the_results_stand_in_the_order_of_the_checks(tmp_path):
    with http_server() as port:
        url = f"http://127.0.0.1:{port}/status"
        ended = run("--http", f"{url}/503", "--tcp", str(port), "--disk", f"{tmp_path} < 100%", "--http", f"{url}/200")
    assert ended.returncode == 1
    said = decode_answer(ended.stdout.encode())
    assert [one.ok for one in said] == [False, True, True, True]
    assert [one.said.split()[0] for one in said][::3] == ["503", "200"]
    assert ended.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--http",), "nothing follows '--http'"),
        (("--port", "22"), "there is no check '--port'"),
        (("tcp", "22"), "there is no check 'tcp'"),
        (("--tcp", "0"), "'0' is no port"),
        (("--timeout", "soon"), "'soon' is no duration"),
    ],
)
def test_what_makes_no_sense_is_said_without_a_traceback(words, said):
    ended = run(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr and ended.stderr.startswith("ERROR: ") and ended.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell line for bash")
def test_a_command_has_no_input():
    argv = [sys.executable, "-I", "-m", "clustersh.probe", "--command", "read line || { echo no input; exit 4; }"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probing:
        # Its own input stays open, and has nothing.
        assert decode_answer(probing.stdout.readline())[0].said == "exit 4: no input"


def test_clusteragent_probe_is_the_same(tmp_path):
    program = Path(sys.executable).parent / "clusteragent"
    ended = subprocess.run([program, "probe", "--disk", f"{tmp_path} < 0%"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert [one.ok for one in decode_answer(ended.stdout.encode())] == [False]
    told = subprocess.run([program, "probe", "--help"], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and all(f"[--{kind} TEXT]" in told.stdout for kind in READERS)


def test_nothing_of_the_callers_place_is_imported(tmp_path):
    for name in ("json", "socket", "clustersh"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    ended = run(cwd=tmp_path, environ={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")})
    assert (ended.returncode, ended.stderr) == (0, "")


def test_it_imports_no_more_than_it_needs():
    listed = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-m", "clustersh.probe"], capture_output=True, text=True, timeout=60
    ).stderr
    names = {line.rpartition("|")[2].strip() for line in listed.splitlines()}
    assert "clustersh.probe.probe" in names
    assert names & {"msgspec", "twisted", "psutil", "http.client", "ssl", "subprocess", "argparse", "asyncio"} == set()


def test_checks_are_made_at_once_and_none_is_waited_for_beyond_its_time(monkeypatch):
    # Four that meet show that they are made at once; one that never ends is given up.
    meeting, never = threading.Barrier(4), threading.Event()

    def check(port, timeout_s: float) -> str:
        if port.port == 1:
            never.wait(60)
        meeting.wait(30)
        return "met"

    monkeypatch.setattr(probe_module, "_load", lambda kind: check)
    monkeypatch.setattr(probe_module, "_GRACE_S", 0.0)
    begun = monotonic()
    try:
        found = probe([("tcp", str(port)) for port in (1, 2, 3, 4, 5)], 2.0)
    finally:
        never.set()
        meeting.abort()
    assert found == [Found(False, "no answer within 2s")] + [Found(True, "met")] * 4
    assert monotonic() - begun < 30


def test_a_check_that_breaks_is_told_as_failed(monkeypatch):
    monkeypatch.setattr(probe_module, "_load", lambda kind: lambda subject, timeout_s: 1 / 0)
    (found,) = probe([("tcp", "1")], 5.0)
    assert found == (False, "the check itself failed: ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    "said", ["\udcff\x1b[2J\n" + "x" * 10_000, "\x00" * 300, '"\\' * 300, "\u00e9" * 300, "\U0001f600" * 300]
)
def test_what_is_told_is_bounded_and_always_text(said):
    line = as_line([Found(False, said)] * 64).encode()
    assert len(line) <= MAX_ANSWER and line.count(b"\n") == 1
    told = decode_answer(line)
    assert len(told) == 64
    assert told[0].said.isprintable() and MAX_SAID - 3 <= len(told[0].said.encode()) <= MAX_SAID


def test_every_kind_has_what_makes_it():
    for kind in READERS:
        assert callable(probe_module._load(kind))
