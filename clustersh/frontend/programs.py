"""Starting and stopping the other two programs as processes, for `clustersh up` and `down`. Neither is imported."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..cli.errors import CliError
from ..config import Listen
from ..home import RunningService, private_folder, read_running

START_S = 60.0
STOP_S = 15.0
_LOOK_S = 0.05
_LINE_LIMIT = 4096
_TAKEN = (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE))
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_DETACHED = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)


class Program(NamedTuple):
    """One of the two services: its console script, its module, and its folder's name in the state directory."""

    script: str
    module: str
    folder: str

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector that runs it with the Python of this process.

        -P: what lies in the folder where somebody happens to be is no code of ours.
        """
        return [sys.executable, "-P", "-m", self.module, *arguments]


COORDINATOR = Program("clusterd", "clustersh.coordinator", "coordinator")
AGENT = Program("clusteragent", "clustersh.agent", "agent")


class Programs:
    """The two services on the state in *home*, started with the caller's *environ*."""

    def __init__(self, reactor: Any, home: Path, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._home = home
        self._environ = {**environ, "CLUSTERSH_HOME": os.fspath(home)}

    def running(self, program: Program) -> RunningService | None:
        """Return what the running service says of itself; None if it doesn't run. Raises CliError."""
        folder = self._home / program.folder
        try:
            (folder / "run.json").stat()
        except PermissionError as error:
            hint = "CLUSTERSH_HOME names the folder; only that user sees what runs on this one"
            raise CliError(f"can't look into {folder}: it is another user's", (hint,)) from error
        except OSError:
            return None
        return read_running(folder)

    def log(self, program: Program) -> Path:
        """Return where it logs."""
        return self._home / program.folder / "log"

    async def start(self, program: Program, *arguments: str) -> RunningService:
        """Start it in the background and return when it is up. Raises CliError saying why it isn't."""
        folder = private_folder(self._home / program.folder)
        began = folder / "start.log"
        with began.open("wb") as output:
            began.chmod(0o600)
            process = subprocess.Popen(
                program.command("--logfile", os.fspath(self.log(program)), *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                start_new_session=True,
                creationflags=_DETACHED,
            )
        for _ in range(round(START_S / _LOOK_S)):
            running = self.running(program)
            if running is not None and running.pid == process.pid and running.address:
                return running
            if process.poll() is not None:
                why, hint = self._last_words(program, began), f"mend that, then repeat it; its log: {self.log(program)}"
                raise CliError(f"{program.script} did not start: {why}", (hint,))
            await deferLater(self._reactor, _LOOK_S)
        raise CliError(f"{program.script} is not up after {START_S:g}s", (f"its log: {self.log(program)}",))

    async def run(
        self,
        program: Program,
        *arguments: str,
        on_line: Callable[[str], None],
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Run one of its commands, giving each line it prints to *on_line*; *environ* comes on top of the caller's.

        Raises CliError where it fails.
        """
        lines = _Lines(on_line)
        command = program.command(*arguments)
        self._reactor.spawnProcess(lines, command[0], command, env={**self._environ, **environ})
        code = await lines.done
        if code != 0:
            raise CliError(f"{program.script} {' '.join(arguments)} failed (exit {code})", ("it said why above",))

    async def stop(self, program: Program) -> RunningService | None:
        """End the service and return what it was; None where it didn't run. It is killed if it won't end."""
        running = self.running(program)
        if running is None:
            return None
        for number, seconds in ((signal.SIGTERM, STOP_S), (_KILL, STOP_S)):
            _signal(running.pid, number, program)
            for _ in range(round(seconds / _LOOK_S)):
                now = self.running(program)
                if (now is None or now.pid != running.pid) and not _is_alive(running.pid):
                    return running
                await deferLater(self._reactor, _LOOK_S)
        raise CliError(
            f"{program.script} (process {running.pid}) does not end",
            (f"what it waits for may be in its log: {self.log(program)}",),
        )

    def _last_words(self, program: Program, began: Path) -> str:
        log = self.log(program)
        for path in (began, log):
            lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
            told = [line for line in lines if line.startswith("ERROR: ") or re.search(r"can't start: ", line)]
            if told:
                return re.sub(r"^ERROR: |^.*can't start: ", "", told[-1])
        return f"its log says why: {began if began.stat().st_size else log}"


class _Lines(ProcessProtocol):
    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.done: Deferred[int | None] = Deferred()
        self._on_line = on_line
        self._rests = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._rests[childFD] + data).split(b"\n")
        self._rests[childFD] = rest[-_LINE_LIMIT:]
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for rest in self._rests.values():
            if rest:
                self._on_line(rest.decode("utf-8", "replace"))
        self.done.callback(getattr(reason.value, "exitCode", None))


def check_free(listen: Listen) -> None:
    """Raise CliError naming who holds the port of *listen*, if somebody does."""
    if listen.port == 0:
        return
    host = "" if listen.host == "*" else listen.host
    try:
        with socket.create_server((host, listen.port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as error:
        if error.errno not in _TAKEN:
            hint = "an address of this machine: clustersh up --listen HOST:PORT"
            raise CliError(f"can't listen on {listen}: {error.strerror}", (hint,)) from error
    raise CliError(
        f"port {listen.port} is taken by {_holder(listen.port)}",
        (f"choose another: clustersh up --port {listen.port + 1 if listen.port < 65535 else 5672}",),
    )


def _holder(port: int) -> str:
    """Name the program that listens on *port*, as far as this user may see it."""
    import psutil

    try:
        found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pid = next((each.pid for each in found if each.laddr and each.laddr.port == port and each.pid), None)
        return f"{psutil.Process(pid).name()} (process {pid})" if pid else "another user's program"
    except (psutil.Error, OSError):
        return "another program"


def _is_alive(pid: int) -> bool:
    """Whether the process is still there: it lets go of its lock a moment before it ends."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(pid: int, number: int, program: Program) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise CliError(
            f"{program.script} (process {pid}) is another user's", ("only that user, or root, may stop it",)
        ) from error
