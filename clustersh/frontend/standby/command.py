"""``clustersh standby``: show the process that stands by, or stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from ...cli.commands import Start
from ...cli.dry_run import add_dry_run
from ...cli.errors import CliError, UsageError
from ...cli.invocation import Invocation
from ...cli.parser import Parser
from ...wire.units import format_size, format_timeout
from . import frames
from .leaving import take_lock
from .peer import peer_of
from .place import Place, find
from .state import State

ANSWER_S = 1.0
GONE_WITHIN_S = 5.0


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``standby``."""
    parser = Parser(
        "clustersh standby",
        "Show the process that makes the next command quick, or stop it.",
        ("clustersh standby", "clustersh standby stop", "CLUSTERSH_STANDBY=off clustersh run ws1 true"),
    )
    parser.usage = "clustersh standby [--json] [--dry-run] [stop]"
    parser.add_argument("word", nargs="?", choices=("stop",), metavar="stop", help="end it, however busy it is")
    add_dry_run(parser)
    given = parser.read(invocation, arguments)
    if given.dry_run and given.word is None:
        raise UsageError("--dry-run goes with stop: to show it changes nothing", ("clustersh standby --help",))
    return StandbyStart(invocation, stop=given.word is not None, dry_run=given.dry_run)


class StandbyStart:
    """One look, or one stop, ready to start. It needs no reactor."""

    def __init__(self, invocation: Invocation, *, stop: bool, dry_run: bool) -> None:
        self._invocation = invocation
        self._stop = stop
        self._dry_run = dry_run

    def at_once(self) -> int:
        """Do it, and print what there is or was."""
        if not hasattr(socket, "AF_UNIX"):
            raise CliError(
                "there are no Unix sockets here, so no standby", ("every command does without",), kind="bad-request"
            )
        where = find(self._invocation.environ)
        if self._dry_run:
            return self._would_stop(where)
        return self._stop_all(where) if self._stop else self._show(where)

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Needed for a command's type; `at_once` is always enough."""
        raise AssertionError("this needs no reactor")

    def _show(self, where: Place) -> int:
        pid, state = _look(where.socket)
        memory = _memory(pid) if state is not None else 0
        if self._invocation.json:
            document = {"running": state is not None, "state": state, "memory_bytes": memory or None}
            self._invocation.console.out_now(msgspec.json.encode(document) + b"\n")
        elif state is not None:
            self._invocation.console.out_now(_text(state, memory, self._invocation.now()))
        elif pid:
            self._invocation.console.out_now(f"process {pid} does not answer; clustersh standby stop ends it\n")
        else:
            self._invocation.console.out_now("no standby runs\n")
        return 0

    def _stop_all(self, where: Place) -> int:
        stopped = [found for path in _sockets(where) if (found := _stop_one(path))]
        if self._invocation.json:
            document = {"stopped": [{"pid": pid, "running": running} for pid, running in stopped]}
            self._invocation.console.out_now(msgspec.json.encode(document) + b"\n")
        else:
            words = "".join(_stopped_text(*each) for each in stopped)
            self._invocation.console.out_now(words or "no standby runs\n")
        return 0

    def _would_stop(self, where: Place) -> int:
        found = [(pid, state.running if state else 0) for pid, state in map(_look, _sockets(where)) if pid]
        if self._invocation.json:
            would = [{"pid": pid, "running": running} for pid, running in found]
            self._invocation.console.out_now(msgspec.json.encode({"would_stop": would, "dry_run": True}) + b"\n")
        else:
            stops = (
                f"process {pid}, after {_commands(running)}" if running else f"process {pid}" for pid, running in found
            )
            self._invocation.console.out_now(
                f"Would stop {', '.join(stops) or 'nothing'}; dry run: nothing was done.\n"
            )
        return 0


def _look(path: str) -> tuple[int, State | None]:
    """Return the pid of the standby at *path*, 0 if there is none, and what it says, if it does."""
    pid = 0
    with contextlib.suppress(OSError, msgspec.MsgspecError), _connected(path) as (connection, found):
        pid = found
        connection.sendall(frames.frame(frames.ASK))
        return pid, msgspec.json.decode(_answer(connection), type=State)
    return pid, None


def _text(state: State, memory: int, now: float) -> str:
    busy = f"{state.running} running now" if state.running else f"idle for {format_timeout(round(state.idle_s))}"
    return (
        f"process {state.pid}, for {format_timeout(round(now - state.started))}: "
        f"{state.calls} command{'' if state.calls == 1 else 's'} so far, {busy}; {format_size(memory)} of memory\n"
        f"ends after {format_timeout(state.ends_after_s)} without a command; clustersh standby stop ends it now\n"
    )


def _stopped_text(pid: int, running: int) -> str:
    later = f"Process {pid} takes no more commands; it ends after {_commands(running)}.\n"
    return later if running else f"Stopped {pid}.\n"


def _commands(running: int) -> str:
    return "one command that runs" if running == 1 else f"{running} commands that run"


def _sockets(where: Place) -> list[str]:
    """Return the sockets of all standbys on this state: of other versions and namespaces too."""
    if not where.private:
        return []
    found = [path for path in Path(where.folder).iterdir() if path.name.startswith(f"{where.of_home}-")]
    for lock in (path for path in found if path.suffix == ".lock"):
        _until_started(lock)
    sockets = (lock.with_suffix("") for lock in found if lock.suffix == ".lock")
    return [str(path) for path in sockets if path.is_socket()]


def _until_started(lock: Path) -> None:
    """Where a standby holds *lock*, wait until it has its socket: else a stop would miss the one that just starts."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline and not lock.with_suffix("").is_socket():
        descriptor = take_lock(str(lock))
        if descriptor is not None:
            os.close(descriptor)
            return
        time.sleep(0.01)


def _stop_one(path: str) -> tuple[int, int] | None:
    """Stop the standby at *path*; return its pid and how many commands it still has. None where there is none."""
    running = 0
    try:
        with _connected(path) as (connection, pid):
            try:
                connection.sendall(frames.frame(frames.STOP))
                running = msgspec.json.decode(_answer(connection), type=State).running
            except (OSError, msgspec.MsgspecError):
                _kill(pid)
    except OSError:
        with contextlib.suppress(OSError):
            Path(path).unlink()
        return None
    if not running:
        _see_off(pid)
    return pid, running


def _see_off(pid: int) -> None:
    """Wait for the end of process *pid*; kill it where it doesn't end."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while pid and _runs(pid):
        if time.monotonic() > deadline:
            _kill(pid)
            return
        time.sleep(0.01)


def _kill(pid: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def _connected(path: str) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        connection.connect(path)
        pid, uid = peer_of(connection)
        if uid != os.geteuid():
            raise PermissionError(f"{path} is another user's")
        yield connection, pid


def _answer(connection: socket.socket) -> bytes:
    taken = frames.Frames()
    while data := connection.recv(4096):
        for _kind, payload in taken.feed(data):
            return payload
    raise OSError("no answer")


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
