"""A coordinator without its door, in memory but for its ledger and index, and agents that are plain objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.task import Clock

from clustersh.config import PolicyConfig
from clustersh.coordinator.fleet import Fleet
from clustersh.coordinator.guard import Finding, Guard
from clustersh.coordinator.index import Index
from clustersh.coordinator.ledger import Ledger
from clustersh.coordinator.links import Link
from clustersh.coordinator.open_runs import OpenJob, OpenRun, RunTable
from clustersh.coordinator.outcomes import Outcomes
from clustersh.coordinator.outputs import Outputs
from clustersh.coordinator.paced_runs import PacedRuns
from clustersh.coordinator.placement.placer import Placer
from clustersh.coordinator.placement.policies import Policies
from clustersh.coordinator.placement.sight import FleetSight
from clustersh.coordinator.policy.made import Sight, make_policy
from clustersh.coordinator.policy.policy import Judge
from clustersh.coordinator.records import Record
from clustersh.coordinator.registry import Registry
from clustersh.coordinator.requests import Requests
from clustersh.coordinator.run_views import RunViews
from clustersh.coordinator.runs import Runs
from clustersh.coordinator.targeting import Targeting
from clustersh.coordinator.texts import Texts
from clustersh.trust.identity import Identity, Role
from clustersh.trust.keys import generate
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command, Outcome, OutputSummary
from clustersh.wire.link import Ended, FromCoordinator, Hello, Pulse, Started, Vitals, Welcome
from clustersh.wire.rest import RunRequest

JOSHUA = Identity(Role.FRONTEND, "joshua@mba", "client-1")
ANN = Identity(Role.FRONTEND, "ann@desk", "client-2")
TRUE = RunRequest("ws1", Command(shell="true"))


class NoBlobs:
    """A store that has everything but what is *missing*; *scripts* are what isn't empty of it."""

    def __init__(self) -> None:
        self.scripts: dict[str, Path] = {}
        self.missing: set[str] = set()

    def has(self, sha256: str) -> bool:
        return sha256 not in self.missing

    def path(self, sha256: str) -> Path:
        return self.scripts.get(sha256, Path(os.devnull))

    async def hold(self, script: str, manifest: str) -> frozenset[str]:
        return frozenset(name for name in (script, manifest) if name)

    def let_go(self, blobs: frozenset[str]) -> None:
        pass


class JudgeHere:
    """Judges in this process."""

    async def judge(
        self,
        command: Command,
        script: bytes | None,
        platform: str,
        folder: str = "",
        executor: str = "",
        *,
        client: str = "",
    ) -> tuple[Finding, ...]:
        return Guard().judge(command, script, platform, folder, executor)


class Agent:
    """One link of a machine: what it was sent, and the words to answer with."""

    def __init__(self, world: World, name: str, store: str = "store-1") -> None:
        self.world = world
        self.sent: list[FromCoordinator] = []
        self.closed: list[str] = []
        self.key = world.registry.machine(name)
        self.link = Link(self.key, "192.0.2.1", self.sent.append, self.closed.append)
        self.store = store

    async def come(self) -> Welcome:
        hello = Hello(version="1", instance="i", store=self.store, clock=1000.0 + self.world.clock.seconds())
        await self.world.fleet.hello(self.link, hello)
        return self.last(Welcome)

    def pulse(self, unreached: str = "") -> None:
        self.world.fleet.received(self.link, Pulse(1000.0 + self.world.clock.seconds(), unreached))

    def go(self) -> None:
        self.world.fleet.closed(self.link)

    def last(self, kind: type) -> object:
        return next(message for message in reversed(self.sent) if isinstance(message, kind))

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.sent)

    def started(self, uuid: str) -> None:
        self.world.fleet.received(self.link, Started(uuid))

    def ended(self, uuid: str, outcome: Outcome | None = None, head: bytes = b"") -> None:
        summary = OutputSummary(stdout_bytes=len(head))
        runs = bytes([len(head)]) if head else b""
        message = Ended(uuid, outcome or Outcome.exited(0), summary, 0.5, head, runs)
        self.world.fleet.received(self.link, message)


class World:
    """The coordinator; *threads* is the reactor that its threads tell, *new_machines* as in the configuration."""

    def __init__(
        self,
        folder: Path,
        clock: Clock | None = None,
        threads: Any = reactor,
        new_machines: str = "use",
        policy: PolicyConfig | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.ledger = Ledger(threads, folder / "ledger", self.now)
        self.index = Index(threads, folder / "index.sqlite", self.ledger)
        self.ledger.subscribe(self.index.follow)
        self.ledger.open()
        self.ledger.start()
        self.index.start()
        self.fleet = Fleet(self.clock, self.clock.seconds, self.now, grace=5.0)
        self.registry = Registry(self.ledger, self.index, lambda identity, key: b"certificate")
        self.table = RunTable()
        self.complaints: list[tuple[str, str]] = []
        policy = policy or PolicyConfig()
        blobs = self.blobs = NoBlobs()
        parts = (self.ledger, self.index, self.registry)
        self.outcomes = Outcomes(
            self.clock, *parts, self.fleet, self.table, blobs.let_go, lambda *words: self.complaints.append(words)
        )
        self.runs = Runs(self.clock, *parts, self.fleet, blobs, self.table, self.outcomes, self.now)
        new_uuid = UuidMaker(lambda: int(self.now() * 1000))
        self.targeting = Targeting(self.ledger, self.registry, self.fleet, new_machines, policy)
        self.targets, self.groups = self.targeting.targets, self.targeting.groups
        self.fleet.on_came = lambda machine_id: self.targeting.came(machine_id, self.fleet.seen[machine_id].facts)
        self.vitals: dict[str, tuple[Vitals, float]] = {}
        self.placer = Placer(Policies(), FleetSight(self.fleet, self.table, lambda _: self.vitals), self.clock.seconds)
        self.paced = PacedRuns(
            self.clock, self.ledger, self.index, self.fleet, self.table, self.runs, self.outcomes, away_s=60.0
        )
        sight = Sight(self.registry, self.fleet, self.targets, self.table, blobs)
        self.policy, self.overrides = make_policy(policy, self.clock, sight, judge or JudgeHere(), b"secret", "box")
        self.requests = Requests(
            *(*parts, self.targets, self.fleet, blobs, self.table, self.runs, new_uuid, b"secret"),
            placer=self.placer,
            policy=self.policy,
            pacer=self.paced,
        )
        self.fleet.events = self.runs
        texts = Texts(Outputs(self.fleet, self.clock.seconds), self.fleet, self.clock)
        self.views = RunViews(self.runs, self.index, texts, self.fleet)

    def now(self) -> float:
        return 1_800_000_000.0 + self.clock.seconds()

    async def load(self) -> None:
        await self.registry.load()
        await self.targeting.load(self.index)
        await self.runs.load()
        await self.paced.load()

    async def join(self, name: str) -> None:
        await self.registry.register(Role.AGENT, name, generate().public_key(), f"key of {name}", "192.0.2.1", "open")

    async def agent(self, name: str = "ws1", store: str = "store-1") -> Agent:
        agent = Agent(self, name, store)
        await agent.come()
        return agent

    async def stop(self) -> None:
        await self.ledger.stop()
        await self.index.stop()

    def records(self, kind: type) -> list[Record]:
        return [entry.record for entry in self.ledger.read() if isinstance(entry.record, kind)]

    def job(self, uuid: str) -> OpenJob:
        run = cast(OpenRun, self.runs.find(uuid))
        return next(iter(run.jobs.values()))

    async def over(self, uuid: str) -> OpenJob:
        """Wait, in real time, until the run has ended."""
        run = cast(OpenRun, self.runs.find(uuid))
        while not run.ended:
            await run.changed.wait(reactor, 10)  # type: ignore[arg-type]
        return self.job(uuid)

    async def settled(self) -> None:
        """Wait until everything that was recorded so far has been taken in."""
        await self.index.ask(lambda connection: None)
