"""What runs are made of, put together: requests, dispatch, batches, placement, outcomes, and the calls about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..blobs import BlobStore
from ..clocks import boot_clock
from ..config import PolicyConfig
from ..wire.ids import UuidMaker
from . import history
from .api import Api
from .fleet import Fleet
from .index import Index
from .judging import Judging
from .ledger import Ledger
from .link_server import LinkFactory
from .open_runs import RunTable
from .outcomes import Outcomes
from .outputs import Outputs
from .paced_runs import PacedRuns
from .placement.sight import make_placer
from .policy.made import Sight, make_policy
from .registry import Registry
from .requests import Requests
from .rest_jobs import JobCalls
from .rest_plans import PlanCalls
from .rest_policy import PolicyCalls
from .rest_runs import RunCalls
from .run_blobs import HeldBlobs
from .run_names import RunNames
from .run_views import RunViews
from .runs import Runs
from .targets import Targets
from .texts import Texts
from .vitals import VitalsBook


class Running:
    """The parts. *complain* is told of a machine's name and what is wrong with what it says; *secret* keys digests.

    *host* is where admins type codes.
    """

    def __init__(
        self,
        reactor: Any,
        ledger: Ledger,
        index: Index,
        registry: Registry,
        fleet: Fleet,
        targets: Targets,
        blobs: BlobStore,
        complain: Callable[[str, str], None],
        secret: bytes,
        policy: PolicyConfig,
        host: str,
    ) -> None:
        self._reactor = reactor
        self._index = index
        self._registry = registry
        self._fleet = fleet
        self._targets = targets
        held, table = HeldBlobs(blobs), RunTable()
        self._table = table
        self.vitals = VitalsBook(reactor, fleet, table.running)
        fleet.on_vitals = self.vitals.said
        parts = (ledger, index, registry, fleet)
        outcomes = Outcomes(reactor, *parts, table, held.let_go, complain)
        self.runs = Runs(reactor, *parts, held, table, outcomes, time.time)
        fleet.events = self.runs
        self._paced = PacedRuns(reactor, ledger, index, fleet, table, self.runs, outcomes)
        self._placer = make_placer(fleet, table, self.vitals.known, boot_clock)
        self._judging = Judging(reactor)
        sight = Sight(registry, fleet, targets, table, blobs)
        self.policy, self.overrides = make_policy(policy, reactor, sight, self._judging, secret, host)
        self._new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)
        self._requests = Requests(
            ledger,
            index,
            registry,
            targets,
            fleet,
            held,
            table,
            self.runs,
            self._new_uuid,
            secret,
            self._placer,
            self.policy,
            pacer=self._paced,
        )

    def add_to(self, api: Api, links: LinkFactory, host: str) -> None:
        """Register the calls about runs and jobs; *host* is what this coordinator calls itself."""
        runs, index, registry, fleet = self.runs, self._index, self._registry, self._fleet
        outputs, names = Outputs(fleet, boot_clock), RunNames(runs, index, registry, self._targets)
        views = RunViews(runs, index, Texts(outputs, fleet, self._reactor), fleet)
        RunCalls(runs, self._requests, views, names, registry, fleet, links, host).add_to(api)
        JobCalls(runs, views, names, index, registry, self._targets, outputs).add_to(api)
        PlanCalls(self._requests, fleet, self.policy, self._table).add_to(api)
        PolicyCalls(self.policy, self._requests).add_to(api)

    async def load(self) -> None:
        """Take up the runs that were under way; the registry and the fleet know already what they saw."""
        self._judging.start()
        await self.runs.load()
        await self._paced.load()
        if last := await self._index.ask(history.last_uuid):
            # The clock may have been set back since: a history is in the order of its uuids.
            self._new_uuid.follow(last)

    async def stop(self) -> None:
        """Begin no more batches, and end the guard's worker."""
        await self._paced.stop()
        await self._judging.stop()

    def forget(self, machine_id: str) -> None:
        """The machine is gone for good; its jobs have ended."""
        self._placer.forget(machine_id)
        self.vitals.forget(machine_id)
