"""Asking Tailscale's program: a stand-in, which prints what the real one would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from clustersh import tailscale_program
from clustersh.coordinator import tailnet
from clustersh.coordinator.tailnet import Tailnet
from clustersh.wire.tailnet import TailnetState

from ..tailscale_double import NO_SERVICE
from ..test_tailscale import peer, status

ensure = pytest_twisted.ensureDeferred
Install = Callable[[str], str]


class Moved:
    """The real reactor, whose time can be moved on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(reactor, name)

    def seconds(self) -> float:
        return reactor.seconds() + self.ahead  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailnet, "WAIT_S", 30.0)  # a loaded machine takes its time to start a shell


async def written(path: Path) -> int:
    """Wait until a stand-in has written a number there."""
    while not path.exists() or not path.read_text().endswith("\n"):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    return int(path.read_text())


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Puts a stand-in there, a shell script, and returns its path."""

    def write(script: str) -> str:
        path = tmp_path / "tailscale"
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o700)
        new.rename(path)
        return str(path)

    return write


def answer(folder: Path, *peers: dict[str, object]) -> str:
    """Return the script that counts its calls, checks its words, and prints a status with *peers*."""
    (folder / "status.json").write_bytes(status(*peers))
    return f'echo x >>{folder}/calls; [ "$*" = "status --json" ] && exec cat {folder}/status.json'


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


@ensure
async def test_nodes_are_known_by_each_address_and_asked_for_once_in_half_a_minute(
    install: Install, tmp_path: Path
) -> None:
    program = install(answer(tmp_path, peer("web01", "100.64.0.2", Active=True, CurAddr="192.0.2.7:41641")))
    moved = Moved()
    found = Tailnet(moved, lambda: program)
    nodes = await found.nodes()
    assert sorted(nodes) == ["100.64.0.1", "100.64.0.2", "fd7a:115c:a1e0::1"]
    assert (nodes["100.64.0.2"].name, nodes["100.64.0.2"].path) == ("web01", "direct")
    moved.ahead = tailnet.CACHE_S - 5
    assert await found.nodes() == nodes and calls(tmp_path) == 1
    install(answer(tmp_path, peer("web01", "100.64.0.2", Active=True)))
    moved.ahead = tailnet.CACHE_S + 5
    assert (await found.nodes())["100.64.0.2"].path == "relayed" and calls(tmp_path) == 2


@ensure
async def test_where_there_is_no_program_there_are_no_nodes() -> None:
    assert await Tailnet(reactor, lambda: None).nodes() == {}


@pytest.mark.parametrize(
    "script",
    ["echo failed to connect to local tailscaled >&2; exit 1", "echo nonsense", "kill -9 $$", "", "echo '{}'; exit 3"],
)
@ensure
async def test_a_program_that_fails_is_none(install: Install, script: str) -> None:
    program = install(script)
    assert await Tailnet(reactor, lambda: program).nodes() == {}


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (NO_SERVICE, TailnetState.NO_SERVICE),
        ("failed to connect to local Tailscale service; is Tailscale running?", TailnetState.NO_SERVICE),
        ("failed to connect to local tailscaled process; is the Tailscale service running?", TailnetState.NO_SERVICE),
        (
            "failed to connect to local tailscaled (which appears to be running as tailscaled, pid 7). Got error: ...",
            TailnetState.FAILED,
        ),
        ("tailscaled is of another version", TailnetState.FAILED),
    ],
)
@ensure
async def test_whether_its_service_runs_is_told_by_its_words_on_each_system(
    install: Install, said: str, state: TailnetState
) -> None:
    report = await tailscale_program.look(reactor, install(f'echo "{said}" >&2; exit 1'))
    assert (report.state, said in report.problem) == (state, True)


@ensure
async def test_a_file_that_can_not_be_run_is_none(tmp_path: Path) -> None:
    (tmp_path / "tailscale").write_text("no program")
    assert await Tailnet(reactor, lambda: str(tmp_path / "tailscale")).nodes() == {}
    assert await Tailnet(reactor, lambda: str(tmp_path / "missing")).nodes() == {}


@ensure
async def test_a_program_that_hangs_is_waited_for_once_and_ended(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailscale_program, "RUN_S", 4.0)
    moved = Moved()
    found = Tailnet(moved, lambda: str(tmp_path / "tailscale"))
    install(answer(tmp_path, peer("web01", "100.64.0.2")))
    nodes = await found.nodes()
    assert "100.64.0.2" in nodes
    install(f"echo $$ >{tmp_path}/pid; sleep 60 & echo $! >{tmp_path}/child; wait")
    monkeypatch.setattr(tailnet, "WAIT_S", 0.1)
    moved.ahead = tailnet.CACHE_S
    assert await found.nodes() == nodes, "what was known last is told meanwhile"
    assert Deferred.fromCoroutine(found.nodes()).called, "nobody else waits for it"
    pid = await written(tmp_path / "pid")
    while _runs(pid):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    soon = reactor.seconds() + tailnet.CACHE_S / 2  # type: ignore[attr-defined]
    while await found.nodes():
        assert reactor.seconds() < soon, "its child holds the pipe open"  # type: ignore[attr-defined]
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    os.kill(await written(tmp_path / "child"), signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@ensure
async def test_too_long_an_answer_is_none(install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = install(answer(tmp_path, peer("web01", "100.64.0.2")))
    size = (tmp_path / "status.json").stat().st_size
    monkeypatch.setattr(tailscale_program, "MAX_ANSWER", size)
    assert "100.64.0.2" in await Tailnet(reactor, lambda: program).nodes()
    monkeypatch.setattr(tailscale_program, "MAX_ANSWER", size - 1)
    assert await Tailnet(reactor, lambda: program).nodes() == {}


@ensure
async def test_a_program_that_prints_for_ever_is_ended(install: Install, tmp_path: Path) -> None:
    program = install(f"echo $$ >{tmp_path}/pid; exec cat /dev/zero")
    assert await Tailnet(reactor, lambda: program).nodes() == {}
    pid = await written(tmp_path / "pid")
    while _runs(pid):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


@ensure
async def test_what_is_old_is_not_told_while_a_newer_state_is_late(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Moved()
    found = Tailnet(moved, lambda: str(tmp_path / "tailscale"))
    install(answer(tmp_path, peer("web01", "100.64.0.2")))
    assert await found.nodes()
    monkeypatch.setattr(tailnet, "WAIT_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    install(f"read line <{tmp_path}/pipe; echo '{{}}'")
    moved.ahead = 3600.0
    assert await found.nodes() == {}
    with (tmp_path / "pipe").open("w") as pipe:
        pipe.write("go\n")
