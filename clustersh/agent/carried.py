"""The machines that this agent carries: each has a folder of its own, ``carried/<name>/``, and is reached by ssh.

To the coordinator each is a machine like any other. What is wrong with one of them is logged, and stops no other.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..cli.text import printable, shortened
from ..home import HomeError, private_folder, read_json, write_json
from ..trust.errors import TrustError
from ..unreachable import Unreachable
from ..wire.ids import MACHINE_NAME
from ..wire.link import Adopt, Adopted, AskHosts, FromAgent, HostList
from ..wire.problems import ProblemError
from .executors import ExecutorError
from .link import adopt_nothing
from .machine import Machine, Process
from .ssh.connection import Program
from .ssh.hosts import configured_hosts, is_destination
from .ssh.problems import HostError
from .ssh.reach import FACTS_FILE, SshReach, find_ssh
from .state import IDENTITY_FILE, AgentIdentity

CARRIED_FILE = "carried.json"
MAX_CARRIED = 1000
_LONGEST_PROBLEM = 1000
_EXPECTED = (HomeError, TrustError, ProblemError, ExecutorError, Unreachable, OSError)


class Carriage(msgspec.Struct, frozen=True):
    """``carried.json``: how this machine is reached."""

    destination: str


class Carried:
    """What the agent in *folder*, known as *identity*, carries. *environment* is that of the ssh it runs."""

    _log = Logger()

    def __init__(
        self, process: Process, folder: Path, identity: AgentIdentity, environment: Mapping[bytes, bytes]
    ) -> None:
        self._process = process
        self._folder = folder
        self._identity = identity
        self._environment = environment
        self._machines: dict[str, Machine] = {}
        self._locks: dict[str, DeferredLock] = {}
        self._found: Program | None = None
        self._stopping = False

    def start(self) -> None:
        """Take up again all that was carried before, in the background."""
        folder = self._folder / "carried"
        for each in sorted(folder.iterdir()) if folder.is_dir() else ():
            if MACHINE_NAME.fullmatch(each.name):
                self._in_background(each.name, self._take_up(each.name))

    async def stop(self) -> None:
        """Stop all of them, at once."""
        self._stopping = True
        await DeferredList([Deferred.fromCoroutine(self._stop_one(name)) for name in list(self._machines)])
        if self._found is not None:
            with contextlib.suppress(OSError):  # it may lie in a folder for temporary files
                self._found.sockets.rmdir()

    async def answer(self, asked: Adopt | AskHosts) -> FromAgent:
        """Do what the coordinator asks for, and say how it went."""
        if isinstance(asked, AskHosts):
            hosts = await self._process.in_thread(configured_hosts, Path.home() / ".ssh" / "config")
            return HostList(asked.request, tuple(hosts))
        try:
            await self._adopt(asked)
        except _EXPECTED as error:
            return Adopted(asked.request, *_in_words(error))
        except Exception:
            self._log.failure("{name} can't be adopted", name=asked.name)
            return Adopted(asked.request, "internal error of the agent")
        return Adopted(asked.request)

    # -- adopting, and letting go

    async def _adopt(self, asked: Adopt) -> None:
        if not is_destination(asked.destination):
            raise ExecutorError(f"{asked.destination!r} can't be where ssh goes to: HOST or USER@HOST")
        if not MACHINE_NAME.fullmatch(asked.name) or asked.name == self._identity.machine:
            raise ExecutorError(f"{asked.name!r} can't be the name of a machine that is carried")
        if len(self._machines) >= MAX_CARRIED:
            raise ExecutorError(f"this agent carries {MAX_CARRIED} machines already")
        reach = self._reach(asked.name, asked.destination)
        try:
            await reach.connect()
            if asked.token:
                async with self._locks.setdefault(asked.name, DeferredLock()):
                    await self._let_in(asked, reach)
        except BaseException:
            reach.close()
            raise
        if not asked.token:
            reach.close()

    async def _let_in(self, asked: Adopt, reach: SshReach) -> None:
        from .adopting import pair

        # What is carried by that name goes only once this one is let in: it may be what somebody else has just adopted.
        folder = self._folder / "carried" / f".{asked.name}"
        await self._process.in_thread(shutil.rmtree, folder, True)
        private_folder(folder)
        try:
            write_json(folder / FACTS_FILE, reach.facts)
            identity = await pair(self._process.reactor, self._folder, folder, self._identity, asked.name, asked.token)
            write_json(folder / CARRIED_FILE, Carriage(asked.destination))
            write_json(folder / IDENTITY_FILE, identity)
            await self._remove(asked.name)
            folder.rename(self._folder / "carried" / asked.name)
        except BaseException:
            await self._process.in_thread(shutil.rmtree, folder, True)
            raise
        await self._start_one(asked.name, reach)

    def _state(self, name: str, problem: str) -> None:
        # What an admin has forgotten is not carried any more.
        if "was forgotten" in problem and name in self._machines:
            self._in_background(name, self._release(name))

    async def _release(self, name: str) -> None:
        async with self._locks.setdefault(name, DeferredLock()):
            machine = self._machines.get(name)
            if machine is not None:
                self._log.info("{name} was forgotten, and is carried no more", name=name)
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        await self._stop_one(name)
        folder = self._folder / "carried" / name
        if folder.exists():
            await self._process.in_thread(shutil.rmtree, folder)

    # -- one machine

    async def _take_up(self, name: str) -> None:
        async with self._locks.setdefault(name, DeferredLock()):
            if (self._folder / "carried" / name / IDENTITY_FILE).exists() and not self._stopping:
                path = self._folder / "carried" / name / CARRIED_FILE
                carriage = read_json(path, Carriage)
                if carriage is None or not is_destination(carriage.destination):
                    raise HomeError(f"{path} is missing or damaged")
                await self._start_one(name, self._reach(name, carriage.destination))

    async def _start_one(self, name: str, reach: SshReach) -> None:
        folder = self._folder / "carried" / name
        machine = Machine(self._process, folder, lambda problem: self._state(name, problem), adopt_nothing)
        left = await machine.open()
        try:
            await machine.start(reach, left)
        except BaseException:
            await machine.close()
            raise
        self._machines[name] = machine

    async def _stop_one(self, name: str) -> None:
        machine = self._machines.pop(name, None)
        if machine is not None:
            await machine.stop()

    def _reach(self, name: str, destination: str) -> SshReach:
        if self._found is None:
            self._found = find_ssh(self._process.reactor, self._environment, self._folder)
        grace = float(self._process.config.grace)
        folder = self._folder / "carried" / name
        return SshReach(self._found, self._process.in_thread, folder, name, destination, grace)

    def _in_background(self, name: str, work: object) -> None:
        task: Deferred[None] = Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        task.addErrback(self._went_wrong, name)

    def _went_wrong(self, failure: Failure, name: str) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(*_EXPECTED):
            self._log.error("{name} can't be carried: {reason}", name=name, reason=failure.getErrorMessage())
        else:
            self._log.failure("{name} can't be carried", failure, name=name)


def _in_words(error: Exception) -> tuple[str, str]:
    """Return why a machine can't be adopted, and what to do about it, as they travel."""
    said, hint = getattr(error, "message", "") or str(error), ""
    if isinstance(error, HostError):
        said, hint = error.why, error.do
    elif isinstance(error, HomeError):
        hint = error.hint
    elif isinstance(error, ProblemError):
        hint = error.problem.hint
    return shortened(printable(said), _LONGEST_PROBLEM), shortened(printable(hint), _LONGEST_PROBLEM)
