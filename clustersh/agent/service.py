"""The agent's composition root: everything is made and put together here."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import __version__
from ..blobs import BlobStore
from ..clocks import boot_clock
from ..config import AgentConfig
from ..daemon import stop_because
from ..heap import keep_freed_memory
from ..home import HomeError, ServiceLock, private_folder, remove_temporaries
from ..open_files import raise_open_files
from ..trust.errors import TrustError
from ..trust.tls import load_client_policy
from ..wire.link import Hello, Start, Welcome
from ..wire.problems import ProblemError
from . import facts
from .backoff import Backoff, Change, local_addresses
from .connector import Connector
from .disk import explain
from .environment import as_bytes, for_job, read_environment
from .executors import ExecutorError
from .executors.choice import OF_PLATFORM, choose
from .executors.chosen import Chosen, Ender, Everywhere
from .fetch import BlobFetcher
from .gauges import Gauges
from .jobs import Jobs
from .link import LinkFactory
from .process import keep_descriptors_private
from .records import StoredJob
from .runner import Machinery, Runner
from .state import StatusFile, load_identity
from .store import JobStore
from .tree import Tree, TreeEnder, age, boot_id, created
from .witnesses import WitnessReader
from .workspace import Workspaces

if TYPE_CHECKING:
    from ..rest_client import RestClient

CONNECT_S = 20.0
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
    """The running parts. Raises HomeError and TrustError where this machine is not enrolled.

    *open_files* is the limit on open files for commands, where it isn't this process's own.
    """

    _log = Logger()

    def __init__(self, reactor: Any, folder: Path, config: AgentConfig, open_files: int | None = None) -> None:
        self._reactor = reactor
        self._folder = folder
        self._config = config
        self._open_files = open_files
        self.identity = load_identity(folder)
        self._policy = load_client_policy(folder, datetime.now(UTC))
        self._client: RestClient | None = None
        self._store = JobStore(reactor, folder, reserve=config.reserve, now=time.time)
        self._ender = TreeEnder(reactor, self._in_thread, config.grace)
        self._boot_id = boot_id()
        self._user_home = Path.home()
        self._facts = facts.gather(self._user_home, str(config.executor or OF_PLATFORM))
        self._instance = secrets.token_hex(8)
        self._status = StatusFile(folder)
        self._status_writer = LoopingCall(self._write_status)
        self._status_writer.clock = reactor
        self._renaming: Deferred[None] | None = None
        self._problem = "it has only begun"
        self._status_problem = ""

    async def start(self, environ: Mapping[str, str]) -> None:
        """Open the store, end what an earlier agent left, and begin to serve."""
        left = await self._store.open()
        try:
            base = await read_environment(self._reactor, self._config.environment, environ, self._ender)
            self._jobs = await self._make_jobs(environ, base, frozenset(job.uuid for job in left))
        except BaseException:
            await self._store.close()
            raise
        self._jobs.recover(left)
        self._connector = self._make_connector()
        self._connector.start()
        self._log.info(
            "the agent of {machine} runs; its coordinator is {address}",
            machine=self.identity.machine,
            address=self.identity.coordinator,
        )
        self._status_writer.start(STATUS_S)
        if self._config.name not in (None, self.identity.machine):
            self._rename(str(self._config.name))

    async def stop(self) -> None:
        """End the jobs, tell their outcomes while there is a link, and close everything."""
        self._status_writer.stop()
        if self._renaming is not None:
            self._renaming.cancel()
        await self._jobs.stop()
        await self._connector.stop()
        if self._client is not None:
            await self._client.close()
        await self._store.close()
        with contextlib.suppress(OSError):
            self._status.remove()

    def _rename(self, name: str) -> None:
        """Ask for another name, in the background. The import costs memory, and most agents are never renamed."""
        from .renaming import Renaming

        renaming = Renaming(self._reactor, self._folder, self.identity, name, time.time)
        self._renaming = Deferred.fromCoroutine(renaming.run())
        self._renaming.addErrback(self._not_renamed)

    def _not_renamed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("the machine can't be renamed", failure)

    def _rest(self) -> RestClient:
        """Return the REST client, made when the first job brings files: what it imports is 4 MiB."""
        from ..rest_client import RestClient

        if self._client is None:
            self._client = RestClient(self._reactor, self.identity.address, self._policy)
        return self._client

    async def _make_jobs(self, environ: Mapping[str, str], base: Mapping[str, str], left: frozenset[str]) -> Jobs:
        cache = BlobStore(private_folder(self._folder / "blobs"), self._config.blob_quota)
        fetcher = BlobFetcher(self._reactor, self._rest, cache, self.identity.machine, self._in_thread)
        found = choose(self._config.executor, environ, self._open_files)
        executor = Chosen(self._reactor, self._in_thread, found)
        self._job_ender: Ender = Everywhere(executor, self._ender) if executor.elsewhere else self._ender
        workspaces = self._workspaces = Workspaces(
            self._folder / "work", self._user_home, fetcher, self._in_thread, elsewhere=executor.elsewhere
        )
        await self._in_thread(workspaces.remove_leftovers, left)

        inherited = as_bytes(base)

        def environment(start: Start) -> dict[bytes, bytes]:
            return for_job(inherited, start.uuid, self.identity.machine, start.env)

        machinery = Machinery(
            self._reactor,
            executor,
            environment,
            workspaces,
            self._job_ender,
            self.identity.machine,
            self._boot_id,
        )

        def make_job(start: Start) -> Runner:
            return Runner(machinery, start, lambda pressure, cut: self._store.output(start.uuid, pressure, cut))

        return Jobs(
            self._reactor,
            self._store,
            clock=boot_clock,
            now=time.time,
            make_job=make_job,
            end_leftovers=self._end_leftovers,
        )

    async def _end_leftovers(self, job: StoredJob) -> float:
        """End what is left of *job*: by its mark in the environment, and by its session if that is still the same.

        Returns how long it ran, as far as that is known (seconds): until now, or until the last agent's last trace.
        """
        before = self.identity.before
        if before:
            await self._ender.end(Tree(job.uuid, before))
        tree = Tree(job.uuid, self.identity.machine)
        mark, lasted = job.mark, 0.0
        if mark is not None and mark.boot_id == self._boot_id and created(mark.pid) == mark.created:
            tree = tree._replace(leader=mark.pid, created=mark.created)
            lasted = age(mark.created)
        elif job.record is not None:
            lasted = max(0.0, await self._store.last_trace(job.uuid) - job.record.begun)
        await self._job_ender.end(tree)
        await self._in_thread(self._workspaces.remove_leftover, job.uuid)
        return lasted

    def _make_connector(self) -> Connector:
        address = self.identity.address
        factory = LinkFactory(
            self._reactor,
            address.netloc,
            jobs=self._jobs,
            store=self._store,
            witnesses=WitnessReader(self._folder, self._in_thread),
            gauges=Gauges(self._reactor, self._user_home, lambda: self._jobs.running),
            hello=self._hello,
            clock=boot_clock,
            on_welcome=self._welcomed,
        )
        plain = HostnameEndpoint(self._reactor, address.host, address.port, timeout=CONNECT_S)
        return Connector(
            self._reactor,
            wrapClientTLS(self._policy.creator, plain),
            factory,
            address,
            self._folder,
            Backoff(self._config.reconnect_max),
            Change(boot_clock, time.monotonic, local_addresses),
            lambda: load_client_policy(self._folder),
            self._say,
        )

    def _hello(self) -> Hello:
        return Hello(
            version=__version__,
            instance=self._instance,
            store=self._store.store_id,
            clock=boot_clock(),
            facts=self._facts,
        )

    def _welcomed(self, message: Welcome) -> None:
        self._connector.welcomed()

    def _say(self, problem: str) -> None:
        self._problem = problem
        self._write_status()

    def _write_status(self) -> None:
        try:
            self._status.write(self._problem, self._jobs.running)
            self._status_problem = ""
        except OSError as error:
            problem, self._status_problem = self._status_problem, explain(error)
            if problem != self._status_problem:
                self._log.warn("can't write the status: {reason}", reason=self._status_problem)

    def _in_thread(self, function: Any, *words: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *words)
