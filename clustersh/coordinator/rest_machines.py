"""REST: who is there, and how they do. docs/rest.md lists the calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..tailscale import Node
from ..wire import units
from ..wire.link import Vitals
from ..wire.problems import Kind
from ..wire.queries import MachinesQuery
from ..wire.rest import Carrier, Machine, Machines
from ..wire.tailnet import Tailscale
from .api import Api
from .callers import Caller
from .fleet import Fleet
from .http import Request
from .links import Seen
from .registry import Key, Registry
from .routes import CLIENTS
from .tailnet import Tailnet
from .targets import Targets
from .vitals import Known, VitalsBook


class Notes(NamedTuple):
    """What others know of a machine by its id, and what its vitals come to."""

    groups_of: Callable[[str], tuple[str, ...]]
    labels_of: Callable[[str], Mapping[str, str]]
    score: Callable[[Vitals], float]


class MachineCalls:
    """The calls about machines."""

    def __init__(
        self,
        registry: Registry,
        targets: Targets,
        fleet: Fleet,
        vitals: VitalsBook,
        tailnet: Tailnet,
        notes: Notes,
    ) -> None:
        self._registry = registry
        self._targets = targets
        self._fleet = fleet
        self._vitals = vitals
        self._tailnet = tailnet
        self._notes = notes

    def add_to(self, api: Api) -> None:
        """Register every call of this family."""
        problems = (Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET)
        api.add("GET", "/v1/machines", self.machines, CLIENTS, query=MachinesQuery, problems=problems)

    async def machines(self, request: Request, caller: Caller, query: MachinesQuery) -> Machines:
        """List the machines: all, or those of a target."""
        keys = self._registry.machines()
        if query.target or query.exclude:
            keys = list(self._targets.resolve(query.target or "all", query.exclude).machines)
        return await request.unless_gone(self._listed(keys, fresh=query.fresh))

    async def _listed(self, keys: list[Key], *, fresh: bool) -> Machines:
        ids = [key.id for key in keys]
        if fresh:
            await self._vitals.refresh(ids)
        nodes = await self._tailnet.nodes()
        known = self._vitals.known(ids)
        return Machines(tuple(self._view(key, known.get(key.id), nodes) for key in keys))

    def _view(self, key: Key, said: Known | None, nodes: Mapping[str, Node]) -> Machine:
        seen = self._fleet.seen.get(key.id)
        known = seen or Seen(0.0)
        address = known.address or key.address
        latency_s, unreached = self._fleet.latency(key.id), self._fleet.unreached(key.id)
        if unreached is not None:  # what was known of it is no news, and the link is its gateway's
            said = latency_s = None
        node = nodes.get(address)
        return Machine(
            name=key.name,
            id=key.id,
            platform=known.facts.platform,
            status=self._fleet.status(key.id),
            last_seen=units.timestamp(seen.at) if seen else None,
            new=key.new,
            address=address,
            fingerprint=key.fingerprint,
            version=known.version,
            enrolled=key.enrolled,
            facts=known.facts,
            groups=self._notes.groups_of(key.id),
            labels=dict(self._notes.labels_of(key.id)),
            vitals=said.vitals if said else None,
            vitals_age_s=round(said.age_s, 1) if said else None,
            score=round(self._notes.score(said.vitals), 4) if said else None,
            latency_ms=round(latency_s * 1000, 2) if latency_s is not None else None,
            tailscale=Tailscale(node.name, node.online, node.path) if node is not None else None,
            tailnet=key.tailnet,
            carrier=self._carrier(key),
            unreached=unreached,
        )

    def _carrier(self, key: Key) -> Carrier | None:
        if key.carrier is None:
            return None
        gateway = self._registry.machine_by_id(key.carrier.machine_id)
        return Carrier(gateway.name if gateway else key.carrier.gateway, key.carrier.destination)
