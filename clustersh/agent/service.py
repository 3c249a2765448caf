"""The agent's composition root: everything is made and put together here."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import __version__
from ..config import AgentConfig
from ..daemon import stop_because
from ..heap import keep_freed_memory
from ..home import HomeError, ServiceLock, remove_temporaries
from ..open_files import raise_open_files
from ..trust.errors import TrustError
from ..wire.link import Adopt, AskHosts, Failed, FromAgent, Start
from ..wire.problems import Kind, ProblemError
from . import facts
from .carried import Carried
from .disk import explain
from .environment import as_bytes, for_job, read_environment
from .executors import ExecutorError
from .executors.choice import OF_PLATFORM, choose
from .executors.chosen import Chosen, Everywhere
from .launch import Launcher
from .local import LocalReach
from .lone_thread import in_lone_thread
from .machine import Machine, Process
from .process import keep_descriptors_private
from .state import AgentIdentity, StatusFile
from .tree import TreeEnder, boot_id

STATUS_S = 1.0
_EXPECTED = (HomeError, TrustError, ProblemError, ExecutorError)


class AgentService(Service):
    """The agent whose state is in *folder*. What keeps it from starting is told in one line and stops the reactor."""

    _log = Logger()

    def __init__(self, reactor: Any, folder: Path, config: AgentConfig, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._folder = folder
        self._config = config
        self._environ = environ
        self._lock = ServiceLock(folder)
        self._started: Deferred[None] | None = None
        self._agent: Agent | None = None
        self.problem = ""

    def startService(self) -> None:
        """Begin; what can be known at once is raised (HomeError, TrustError), the rest is told later, as `problem`."""
        super().startService()
        self._lock.take()
        try:
            keep_freed_memory()
            keep_descriptors_private()
            remove_temporaries(self._folder)
            self._agent = Agent(self._reactor, self._folder, self._config, raise_open_files())
        except BaseException:
            self._lock.release()
            raise
        self._started = Deferred.fromCoroutine(self._start(self._agent))
        self._started.addErrback(self._give_up)

    def stopService(self) -> Deferred[None]:
        """End the jobs, report them, and leave."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self, agent: Agent) -> None:
        try:
            await agent.start(self._environ)
            try:
                self._lock.announce(agent.identity.coordinator, __version__)
            except BaseException:
                await agent.stop()
                raise
        except BaseException:
            self._lock.release()
            raise

    async def _stop(self) -> None:
        started, self._started = self._started, None
        if started is not None and not started.called:
            started.cancel()
            await started
        elif started is not None and not self.problem:
            if self._agent is not None:
                await self._agent.stop()
            self._lock.release()

    def _give_up(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if isinstance(failure.value, OSError):
            failure = Failure(HomeError(f"can't use the folder {self._folder}: {explain(failure.value)}"))
        self.problem = failure.getErrorMessage()
        if failure.check(*_EXPECTED) is None:
            self._log.failure("the agent can't start", failure)
        else:
            self._log.critical("the agent can't start: {reason}", reason=self.problem)
        stop_because(self._reactor, failure.value)


class Agent:
    """The running parts: this machine, and those that it carries. Raises HomeError and TrustError if not enrolled.

    *open_files* is the limit on open files for commands, where it isn't this process's own.
    """

    _log = Logger()

    def __init__(self, reactor: Any, folder: Path, config: AgentConfig, open_files: int | None = None) -> None:
        self._reactor = reactor
        self._folder = folder
        self._config = config
        self._open_files = open_files
        ender = TreeEnder(reactor, self._in_thread, config.grace)
        self._process = Process(reactor, config, self._in_thread, ender, boot_id(), secrets.token_hex(8))
        self._own = Machine(self._process, folder, lambda problem: self._say(problem), self._adopt)
        self._carried: Carried | None = None
        self._user_home = Path.home()
        self._facts = facts.gather(self._user_home, str(config.executor or OF_PLATFORM))
        self._status = StatusFile(folder)
        self._status_writer = LoopingCall(self._write_status)
        self._status_writer.clock = reactor
        self._renaming: Deferred[None] | None = None
        self._problem = "it has only begun"
        self._status_problem = ""

    @property
    def identity(self) -> AgentIdentity:
        """Who this machine is."""
        return self._own.identity

    async def start(self, environ: Mapping[str, str]) -> None:
        """Open the stores, end what an earlier agent left, and begin to serve."""
        left = await self._own.open()
        try:
            base = await read_environment(self._reactor, self._config.environment, environ, self._process.ender)
            await self._own.start(self._reach(environ, as_bytes(base)), left)
        except BaseException:
            await self._own.close()
            raise
        self._carried = Carried(self._process, self._folder, self.identity, as_bytes(base))
        self._carried.start()
        self._status_writer.start(STATUS_S)
        if self._config.name not in (None, self.identity.machine):
            self._rename(str(self._config.name))

    def _reach(self, environ: Mapping[str, str], base: dict[bytes, bytes]) -> LocalReach:
        def environment(start: Start) -> dict[bytes, bytes]:
            return for_job(base, start.uuid, self.identity.machine, start.env)

        found = choose(self._config.executor, environ, self._open_files)
        executor = Chosen(self._reactor, partial(in_lone_thread, self._reactor), found)
        launcher = Launcher(self._reactor, executor, environment)
        here = self._process.ender
        ender = Everywhere(executor, here) if executor.elsewhere else here
        return LocalReach(self._facts, launcher, ender, self._user_home, self._in_thread)

    async def stop(self) -> None:
        """End the jobs, tell their outcomes while there are links, and close everything."""
        self._status_writer.stop()
        if self._renaming is not None:
            self._renaming.cancel()
        if self._carried is not None:
            await self._carried.stop()
        await self._own.stop()
        with contextlib.suppress(OSError):
            self._status.remove()

    async def _adopt(self, asked: Adopt | AskHosts) -> FromAgent:
        if self._carried is None:
            return Failed(asked.request, Kind.UNAVAILABLE.value, "the agent has only begun")
        return await self._carried.answer(asked)

    def _rename(self, name: str) -> None:
        """Ask for another name, in the background. The import costs memory, and most agents are never renamed."""
        from .renaming import Renaming

        renaming = Renaming(self._reactor, self._folder, self.identity, name, time.time)
        self._renaming = Deferred.fromCoroutine(renaming.run())
        self._renaming.addErrback(self._not_renamed)

    def _not_renamed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("the machine can't be renamed", failure)

    def _say(self, problem: str) -> None:
        self._problem = problem
        self._write_status()

    def _write_status(self) -> None:
        try:
            self._status.write(self._problem, self._own.running)
            self._status_problem = ""
        except OSError as error:
            problem, self._status_problem = self._status_problem, explain(error)
            if problem != self._status_problem:
                self._log.warn("can't write the status: {reason}", reason=self._status_problem)

    def _in_thread(self, function: Any, *words: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *words)
