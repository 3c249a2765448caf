"""How a machine that only has ssh is reached: its executor, files, facts and vitals, over kept connections."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from ...home import HomeError, private_folder, read_json, write_json
from ...wire.link import Facts, Vitals
from ..executors import ExecutorError
from ..executors.chosen import Chosen
from ..executors.ssh import Ssh
from ..fetch import BlobFetcher, InThread
from ..launch import Launcher
from ..reached import Reached
from .connection import Connections, Program
from .ender import SshEnder
from .facts import VitalsReader, read_facts
from .workspace import SshWorkspaces

FACTS_FILE = "facts.json"
_VITALS_S = 1.5
_TRY_AGAIN_S = (30.0, 600.0)
"""How often a machine is tried that nobody runs anything on, at first and at last: sshd may ban who asks too often."""
_TRY_AWAY_S = 60.0
"""And at last where no sshd is asked, as nobody is there."""
_SOCKET_ROOM = 70
"""Characters that the folder of a control socket may have: 108 in all, and ssh adds some 30 of its own."""


def find_ssh(reactor: Any, environment: Mapping[bytes, bytes], folder: Path) -> Program:
    """Return the system's ssh; its sockets go into a private folder, below *folder* if that is short enough.

    Raises ExecutorError, HomeError.
    """
    path = shutil.which("ssh", path=os.fsdecode(environment.get(b"PATH", b"")) or None)
    if path is None:
        raise ExecutorError("there is no ssh on this machine's PATH; install OpenSSH's client")
    here = socket.gethostname().partition(".")[0]
    quiet = {**environment, b"SSH_ASKPASS_REQUIRE": b"never"}
    return Program(reactor, path, quiet, _sockets(folder), here)


def _sockets(folder: Path) -> Path:
    wanted = folder / "ssh"
    if len(os.fsencode(wanted)) > _SOCKET_ROOM:
        mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        wanted = Path(tempfile.gettempdir()) / f"clustersh-{os.getuid()}-{mark}"
    with contextlib.suppress(FileExistsError):
        wanted.mkdir(mode=0o700)
    found = wanted.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HomeError(f"{wanted} belongs to somebody else", f"remove it: rm -r {wanted}")
    private_folder(wanted)
    for old in wanted.iterdir():
        old.unlink(missing_ok=True)
    return wanted


class SshReach:
    """The machine called *machine* at *destination*; what is noted of it lies in *folder*."""

    def __init__(
        self, program: Program, in_thread: InThread, folder: Path, machine: str, destination: str, grace: float
    ) -> None:
        self._program = program
        self._in_thread = in_thread
        self._folder = folder
        self._machine = machine
        self._connections = Connections(program, destination, self._greeted, self._tried, self._lost)
        self.reached = Reached()
        self._lost_at = float("-inf")
        self._ender = SshEnder(program, self._connections, folder, machine, grace)
        executor = Ssh(self._connections, self._ender, machine)
        # Connecting and ending have bounds already; and of many commands, some wait for several connections to be made.
        self.ender = Chosen(program.reactor, in_thread, executor, patience=None)
        self.launcher = Launcher(program.reactor, self.ender, lambda _: program.environment)
        self._vitals = VitalsReader()
        self._next_try, self._pause = 0.0, _TRY_AGAIN_S[0]
        with contextlib.suppress(HomeError):
            self.facts = read_json(folder / FACTS_FILE, Facts) or Facts()

    facts = Facts()

    async def connect(self) -> None:
        """See that there is a connection. Raises ExecutorError."""
        (await self._connections.take()).leave()

    def workspaces(self, folder: Path, fetcher: BlobFetcher) -> SshWorkspaces:
        """Return what makes workspaces in *folder*."""
        return SshWorkspaces(
            folder, fetcher, self._in_thread, self._program, self._connections, self._ender, self._machine
        )

    def gauges(self, jobs: Callable[[], int]) -> SshGauges:
        """Return what tells how the machine does; *jobs* says how many run."""
        return SshGauges(self, jobs)

    async def measure(self, jobs: int) -> Vitals | None:
        """Return how the machine does; None where it doesn't tell."""
        self._connections.close_idle()
        connection = self._connections.one
        if connection is None:
            self._try_now_and_then()
            return None
        said = await connection.ask(_VITALS_S)
        if said is None:
            return None
        self._ender.reached()  # what could not be ended although there was a connection
        return self._vitals.read(said, jobs)

    def _try_now_and_then(self) -> None:
        now = self._program.reactor.seconds()
        if now >= self._next_try:
            self._next_try = now + self._pause
            problem = self._connections.problem
            longest = _TRY_AWAY_S if problem is None or problem.away else _TRY_AGAIN_S[1]
            self._pause = min(2 * self._pause, longest)
            Deferred.fromCoroutine(self.connect()).addErrback(lambda failure: failure.trap(ExecutorError) and None)

    def _tried(self) -> None:
        """An attempt has ended. One more connection than there is may be too many; that is no matter here."""
        problem = self._connections.problem
        reached = problem is None or self._connections.one is not None or self._connections.closed
        self.reached.tell("" if reached or problem is None else problem.why)

    def _lost(self) -> None:
        """There is no connection any more: try at once, but not again and again."""
        self._tried()
        now = self._program.reactor.seconds()
        if now - self._lost_at >= _TRY_AGAIN_S[0]:
            self._try_now_and_then()
        self._lost_at = now

    def _greeted(self, said: str) -> None:
        self._next_try, self._pause = 0.0, _TRY_AGAIN_S[0]
        self._vitals.read(said, 0)
        facts = read_facts(said)
        if facts != self.facts:
            self.facts = facts
            with contextlib.suppress(OSError):
                write_json(self._folder / FACTS_FILE, facts)
        self._ender.reached()

    def close(self) -> None:
        """End the connections, whatever still goes over them; what isn't ended there is left for later."""
        self._connections.close()
        self._ender.close()


class SshGauges(NamedTuple):
    """How the machine of *reach* does, as an agent's own gauges tell it."""

    reach: SshReach
    jobs: Callable[[], int]

    async def measure(self) -> Vitals | None:
        """Return it; None where it doesn't tell."""
        return await self.reach.measure(self.jobs())
