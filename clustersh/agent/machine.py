"""One machine that this agent serves: its identity, its jobs and their store, and its link.

Most agents have one, the machine that they run on; a gateway has one more for each machine that it carries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.logger import Logger

from .. import __version__
from ..blobs import BlobStore
from ..clocks import boot_clock
from ..config import AgentConfig
from ..home import private_folder
from ..trust.tls import load_client_policy
from ..wire.link import Facts, Hello, Start, Welcome
from .backoff import Backoff, Change, local_addresses
from .connector import Connector
from .executors.chosen import Ender
from .fetch import BlobFetcher, InThread
from .jobs import Jobs
from .launch import Launcher
from .link import Answer, Gauges, LinkFactory
from .reached import Reached
from .records import StoredJob
from .runner import Machinery, Runner
from .state import load_identity
from .store import JobStore
from .tree import Tree, TreeEnder, age, created
from .witnesses import WitnessReader
from .workspace import WORK, Workspaces

if TYPE_CHECKING:
    from ..rest_client import RestClient

CONNECT_S = 20.0
STOP_S = 5.0
"""Beyond the grace: what ending the jobs of a machine that is far away may take when the agent stops."""


class Reach(Protocol):
    """How a machine's commands get to where they run."""

    @property
    def launcher(self) -> Launcher:
        """Starts commands, by the machine's executor."""

    @property
    def facts(self) -> Facts:
        """What the machine is."""

    @property
    def ender(self) -> Ender:
        """Ends there what a job has started."""

    @property
    def reached(self) -> Reached:
        """Whether they get there."""

    def gauges(self, jobs: Callable[[], int]) -> Gauges:
        """Return what tells how the machine does; *jobs* says how many run."""

    def workspaces(self, folder: Path, fetcher: BlobFetcher) -> Workspaces:
        """Return what makes workspaces, in *folder* here."""

    def close(self) -> None:
        """Let go of what is kept."""


class Process(NamedTuple):
    """What all machines of one agent share: its process. *ender* ends processes on this host."""

    reactor: Any
    config: AgentConfig
    in_thread: InThread
    ender: TreeEnder
    boot_id: str
    instance: str


class Machine:
    """The machine whose state is in *folder*. Raises HomeError and TrustError where it isn't enrolled.

    *on_state* is told of each change of its link: "" connected, else why not. *adopt* answers what only the agent's
    own machine is asked.
    """

    _log = Logger()

    def __init__(self, process: Process, folder: Path, on_state: Callable[[str], None], adopt: Answer) -> None:
        self._process = process
        self._reactor = process.reactor
        self._folder = folder
        self._on_state = on_state
        self._adopt = adopt
        self.identity = load_identity(folder)
        self._policy = load_client_policy(folder, datetime.now(UTC))
        self._client: RestClient | None = None
        self._store = JobStore(process.reactor, folder, reserve=process.config.reserve, now=time.time)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self._jobs.running

    async def open(self) -> list[StoredJob]:
        """Open the store; return what an earlier agent left running."""
        return await self._store.open()

    async def close(self) -> None:
        """Close the store of a machine that was not started."""
        await self._store.close()

    async def start(self, reach: Reach, left: list[StoredJob]) -> None:
        """End what an earlier agent left, and begin to serve."""
        self._reach = reach
        self._jobs = await self._make_jobs(frozenset(job.uuid for job in left))
        self._jobs.recover(left)
        self._connector = self._make_connector()
        self._connector.start()
        self._log.info(
            "the agent of {machine} runs; its coordinator is {address}",
            machine=self.identity.machine,
            address=self.identity.coordinator,
        )

    async def stop(self) -> None:
        """End the jobs, tell their outcomes while there is a link, and close everything."""
        # Where the machine can't be reached, its jobs can't be ended now, and everybody waits for this.
        giving_up = self._reactor.callLater(self._process.config.grace + STOP_S, self._reach.close)
        await self._jobs.stop()
        await self._connector.stop()
        if giving_up.active():
            giving_up.cancel()
            self._reach.close()
        if self._client is not None:
            await self._client.close()
        await self._store.close()

    def _rest(self) -> RestClient:
        """Return the REST client, made when the first job brings files: what it imports is 4 MiB."""
        from ..rest_client import RestClient

        if self._client is None:
            self._client = RestClient(self._reactor, self.identity.address, self._policy)
        return self._client

    async def _make_jobs(self, left: frozenset[str]) -> Jobs:
        in_thread, machine = self._process.in_thread, self.identity.machine
        cache = BlobStore(private_folder(self._folder / "blobs"), self._process.config.blob_quota)
        fetcher = BlobFetcher(self._reactor, self._rest, cache, machine, in_thread)
        workspaces = self._workspaces = self._reach.workspaces(self._folder / WORK, fetcher)
        await in_thread(workspaces.remove_leftovers, left)
        launcher, ender = self._reach.launcher, self._reach.ender
        machinery = Machinery(self._reactor, launcher, workspaces, ender, machine, self._process.boot_id)

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
        ender, before = self._process.ender, self.identity.before
        if before:
            await ender.end(Tree(job.uuid, before))
        tree = Tree(job.uuid, self.identity.machine)
        mark, lasted = job.mark, 0.0
        if mark is not None and mark.boot_id == self._process.boot_id and created(mark.pid) == mark.created:
            tree = tree._replace(leader=mark.pid, created=mark.created)
            lasted = age(mark.created)
        elif job.record is not None:
            lasted = max(0.0, await self._store.last_trace(job.uuid) - job.record.begun)
        await ender.end(tree)
        if self._reach.ender is not ender:
            await self._reach.ender.end(tree)
        await self._workspaces.clear(job.uuid)
        return lasted

    def _make_connector(self) -> Connector:
        address = self.identity.address
        factory = LinkFactory(
            self._reactor,
            address.netloc,
            jobs=self._jobs,
            store=self._store,
            witnesses=WitnessReader(self._folder, self._process.in_thread),
            gauges=self._reach.gauges(lambda: self._jobs.running),
            hello=self._hello,
            clock=boot_clock,
            on_welcome=self._welcomed,
            adopt=self._adopt,
            reached=self._reach.reached,
        )
        plain = HostnameEndpoint(self._reactor, address.host, address.port, timeout=CONNECT_S)
        return Connector(
            self._reactor,
            wrapClientTLS(self._policy.creator, plain),
            factory,
            address,
            self._folder,
            Backoff(self._process.config.reconnect_max),
            Change(boot_clock, time.monotonic, local_addresses),
            lambda: load_client_policy(self._folder),
            self._on_state,
        )

    def _hello(self) -> Hello:
        return Hello(
            version=__version__,
            instance=self._process.instance,
            store=self._store.store_id,
            clock=boot_clock(),
            facts=self._reach.facts,
            unreached=self._reach.reached.problem,
        )

    def _welcomed(self, message: Welcome) -> None:
        self._connector.welcomed()
