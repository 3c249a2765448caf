from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.real

PROGRAM = """
from clustersh.cli.program import run_program
from clustersh.cli.errors import CliError, UsageError, Answer
from twisted.internet.defer import Deferred

def choose(invocation):
    invocation.json = "--json" in invocation.argv
    async def start(reactor):
{body}
    if "usage" in invocation.argv:
        raise UsageError("wrong", ("right",))
    if "help" in invocation.argv:
        raise Answer("help\\n")
    return start

run_program("tool", choose)
"""


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[bytes]]:
    def run(body: str, *words: str, **options: object) -> subprocess.Popen[bytes]:
        indented = "\n".join("        " + line for line in body.splitlines())
        code = PROGRAM.replace("{body}", indented)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-c", code, *words], **{**pipes, **options})  # type: ignore[call-overload, no-any-return]

    return run


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.mark.parametrize(
    ("body", "words", "status", "out", "err"),
    [
        ("await invocation.console.out('hi\\n'); return 7", (), 7, "hi\n", ""),
        ("raise CliError('no', ('do',), status=126)", (), 126, "", "ERROR: no\nhint: do\n"),
        ("return 0", ("usage",), 125, "", "ERROR: wrong\nhint: right\n"),
        ("return 0", ("help",), 0, "help\n", ""),
        ("invocation.started = None; raise KeyError(1)", (), 123, "", None),
        ("Deferred().errback(ValueError('lost')); import gc; gc.collect(); return 0", (), 0, "", ""),
    ],
)
def test_ends(start: Start, body: str, words: tuple[str, ...], status: int, out: str, err: str | None) -> None:
    program = start(body, *words)
    got_out, got_err = (data.decode() for data in program.communicate(timeout=60))
    assert (program.returncode, got_out) == (status, out)
    assert "Traceback" not in got_err
    if err is not None:
        assert got_err == err


def test_a_debugger_gets_the_traceback(start: Start) -> None:
    program = start("raise KeyError(1)", env={**os.environ, "CLUSTERSH_DEBUG": "1"})
    assert b"Traceback" in program.communicate(timeout=60)[1]
    assert program.returncode == 125


def test_json_errors(start: Start) -> None:
    program = start("raise CliError('no', ('do',), kind='not-running', uuid='u', started=None)", "--json")
    out, err = program.communicate(timeout=60)
    assert json.loads(out) == {
        "error": {"type": "not-running", "message": "no", "hint": "do", "uuid": "u", "started": None}
    }
    assert err == b"ERROR: no\nhint: do\n"


def test_a_reader_that_left_ends_it_quietly(start: Start) -> None:
    program = start("while True: await invocation.console.out(b'x' * 65536)")
    assert program.stdout is not None and program.stderr is not None
    program.stdout.read(10)
    program.stdout.close()
    assert program.stderr.read() == b""
    assert program.wait(60) == 141


def test_closed_standard_descriptors(start: Start) -> None:
    program = start("await invocation.console.out('lost'); return 3", preexec_fn=lambda: os.closerange(0, 3))
    assert program.wait(60) == 3


READY = "await invocation.console.out('ready\\n')\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_that_asks_for_none(start: Start, number: int) -> None:
    program = start(READY + "await Deferred()")
    _read_ready(program)
    program.send_signal(number)
    assert program.wait(60) == 128 + number
    assert program.communicate()[1] == b""


def test_signals_reach_the_command(start: Start) -> None:
    body = "got = Deferred()\ninvocation.signals.handler = got.callback\n" + READY + "return 40 + await got"
    program = start(body)
    _read_ready(program)
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == 40 + signal.SIGTERM
    program.communicate()


def test_ignored_signals_stay_ignored(start: Start) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    program = start(READY + "await invocation.stdin.read(1)\nreturn 5", preexec_fn=ignore, stdin=subprocess.PIPE)
    _read_ready(program)
    program.send_signal(signal.SIGHUP)
    program.communicate(b"go on\n", timeout=60)
    assert program.returncode == 5


def _read_ready(program: subprocess.Popen[bytes]) -> None:
    assert program.stdout is not None
    assert select.select([program.stdout], [], [], 60)[0]
    assert program.stdout.readline() == b"ready\n"


def test_a_signal_that_came_before_the_reactor_ends_a_command_that_asks_for_none() -> None:
    program = """
import os, signal
from twisted.internet.defer import Deferred
from clustersh.cli.program import run_program

def choose(invocation):
    async def start(reactor):
        invocation.signals.let_end()
        await Deferred()
    def at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    start.at_once = at_once
    return start

run_program("tool", choose)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, b"", b"")
