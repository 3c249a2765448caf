"""What targets are resolved by, put together: groups and labels, facts, and the fleet as it is now."""

from __future__ import annotations

from ..config import PolicyConfig
from ..wire.link import Facts
from .facts import FactBook
from .fleet import Fleet
from .group_book import GroupBook
from .group_sources import GroupSources
from .index import Index
from .ledger import Ledger
from .policy.named import NamedGroups
from .policy.policy import Policy
from .registry import Registry
from .rest_groups import GroupCalls
from .targets import Targets


class Targeting:
    """The parts; *new_machines* and *policy* as in the configuration."""

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        fleet: Fleet,
        new_machines: str = "wait",
        policy: PolicyConfig = PolicyConfig(),  # noqa: B008 - it is immutable
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self.facts = FactBook()
        self.groups = GroupBook(ledger)
        ledger.subscribe(self.groups.follow)
        registry.watch_ended(lambda key: self.facts.forget(key.id))
        self._sources = GroupSources(registry, fleet, self.groups, self.facts)
        self._named = NamedGroups(policy)
        self.targets = Targets(registry, self._sources, new_wait=new_machines == "wait")

    def calls(self, policy: Policy) -> GroupCalls:
        """Return the calls about targets, groups and labels; *policy* says which machines a client may use."""
        parts = (self._registry, self._fleet, self.targets, self.groups, self._sources)
        return GroupCalls(*parts, self._named, policy)

    async def load(self, index: Index) -> None:
        """Read what there was before; the registry and the fleet know already what they saw."""
        await self.groups.load(index)
        for machine in self._registry.machines():
            if seen := self._fleet.seen.get(machine.id):
                self.facts.note(machine.id, seen.facts)

    def came(self, machine_id: str, facts: Facts) -> None:
        """A machine came, and says this of itself."""
        self.facts.note(machine_id, facts)
