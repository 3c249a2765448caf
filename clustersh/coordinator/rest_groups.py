"""REST: what a target means, and the groups and labels that targets ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ..folding import node_set
from ..trust.identity import Identity
from ..wire.fleet import (
    MAX_LABELS,
    ChangeGroup,
    ChangeLabels,
    DeleteGroup,
    Group,
    GroupChanged,
    Groups,
    Labels,
    LabelsChanged,
    MachineLabels,
    TargetView,
    group_name,
    label_key,
    label_value,
)
from ..wire.problems import Kind, ProblemError
from ..wire.queries import TargetQuery
from .api import Api
from .callers import Caller
from .fleet import Fleet
from .group_book import GroupBook
from .group_sources import GroupSources
from .http import Request
from .key_book import Key
from .policy.named import NamedGroups
from .policy.policy import Policy
from .registry import Registry
from .routes import CLIENTS
from .targets import Resolved, Targets

T = TypeVar("T")


class GroupCalls:
    """``/v1/targets``, ``/v1/groups`` and ``/v1/labels``."""

    def __init__(
        self,
        registry: Registry,
        fleet: Fleet,
        targets: Targets,
        book: GroupBook,
        sources: GroupSources,
        named: NamedGroups,
        policy: Policy,
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._targets = targets
        self._book = book
        self._sources = sources
        self._named = named
        self._policy = policy

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        group, unknown = "/v1/groups/<name>", (Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET)
        changes = (*unknown, Kind.STORAGE, Kind.POLICY)
        api.add("GET", "/v1/targets", self.target, CLIENTS, query=TargetQuery, problems=unknown)
        api.add("GET", "/v1/groups", self.groups, CLIENTS)
        api.add("POST", f"{group}/add", self.add, CLIENTS, ChangeGroup, problems=changes)
        api.add("POST", f"{group}/remove", self.remove, CLIENTS, ChangeGroup, problems=changes)
        ended = (Kind.UNKNOWN_GROUP, Kind.STORAGE, Kind.POLICY)
        api.add("POST", f"{group}/delete", self.delete, CLIENTS, DeleteGroup, problems=ended)
        api.add("GET", "/v1/labels", self.labels, CLIENTS, query=TargetQuery, problems=unknown)
        api.add("POST", "/v1/labels", self.label, CLIENTS, ChangeLabels, problems=changes)

    async def target(self, request: Request, caller: Caller, query: TargetQuery) -> TargetView:
        """Say which machines a target means now."""
        resolved = self._targets.resolve(query.target, query.exclude)
        machines, there = resolved.machines, self._fleet.not_offline
        return TargetView(
            target=query.target,
            exclude=query.exclude,
            machines=_names(machines),
            folded=node_set(_names(machines)),
            online=sum(machine.id in there for machine in machines),
            offline=_names(machine for machine in machines if machine.id not in there),
            new=_names(machine for machine in machines if machine.new),
            left_out=resolved.left_out,
            unreachable=_names(machine for machine in machines if self._fleet.unreached(machine.id)),
        )

    async def groups(self, request: Request, caller: Caller) -> Groups:
        """List the groups that people made, and what facts and labels make groups of."""
        groups = tuple(self._group(name, ids) for name, ids in sorted(self._book.groups.items()))
        return Groups(groups, self._sources.values())

    async def add(self, request: Request, caller: Caller, name: str, body: ChangeGroup) -> GroupChanged:
        """Put machines into a group, which begins to exist with its first."""
        group = self._changing(caller, name)
        resolved = self._targets.resolve(body.target, body.exclude)
        changed = await self._book.add(group, resolved.machines, caller.identity, dry_run=body.dry_run)
        if not body.dry_run:
            await self._take_into_use(resolved, caller.identity)
        return _changed(group, resolved.machines, changed, body)

    async def remove(self, request: Request, caller: Caller, name: str, body: ChangeGroup) -> GroupChanged:
        """Take machines out of a group, which is there until it is deleted."""
        group = self._changing(caller, name)
        self._book.members(group)
        machines = self._targets.resolve(body.target, body.exclude).machines
        changed = await self._book.remove(group, machines, caller.identity, dry_run=body.dry_run)
        return _changed(group, machines, changed, body)

    async def delete(self, request: Request, caller: Caller, name: str, body: DeleteGroup) -> GroupChanged:
        """End a group; its machines stay as they are."""
        group = self._changing(caller, name)
        ids = await self._book.delete(group, caller.identity, dry_run=body.dry_run)
        return GroupChanged(group, self._group(group, ids).machines, dry_run=body.dry_run)

    async def labels(self, request: Request, caller: Caller, query: TargetQuery) -> Labels:
        """List the labels of a target's machines."""
        machines = self._targets.resolve(query.target, query.exclude).machines
        return Labels(tuple(MachineLabels(each.name, self._book.labels_of(each.id)) for each in machines))

    async def label(self, request: Request, caller: Caller, body: ChangeLabels) -> LabelsChanged:
        """Set labels of machines, and take others away."""
        labels = _labels(body.labels)
        self._named.check_labels(caller.identity, labels)
        resolved = self._targets.resolve(body.target, body.exclude)
        changed = await self._book.label(resolved.machines, labels, caller.identity, dry_run=body.dry_run)
        if not body.dry_run:
            await self._take_into_use(resolved, caller.identity)
        return LabelsChanged(labels, _names(changed), _others(resolved.machines, changed), body.dry_run)

    async def _take_into_use(self, resolved: Resolved, client: Identity) -> None:
        """Who names new machines takes them into use; not those that it may run nothing on, as where it adopts one."""
        new = [machine for machine in resolved.machines if machine.new and machine.id in resolved.named]
        usable = self._policy.usable(client, new)
        await self._registry.take_into_use([machine.id for machine in usable], client)

    def _changing(self, caller: Caller, name: str) -> str:
        """Return the group *name*, which *caller* may change. Raises ProblemError."""
        group = _read(group_name, name)
        self._named.check_group(caller.identity, group)
        return group

    def _group(self, name: str, ids: Iterable[str]) -> Group:
        keys = [key for key in map(self._registry.machine_by_id, ids) if key is not None]
        machines = tuple(sorted(_names(keys)))
        return Group(name, machines, node_set(machines), tuple(sorted(_names(key for key in keys if key.new))))


def _labels(asked: dict[str, str | None]) -> dict[str, str | None]:
    if not 1 <= len(asked) <= MAX_LABELS:
        raise ProblemError(Kind.BAD_REQUEST, f"1 to {MAX_LABELS} labels are set at a time")
    labels = {
        _read(label_key, key): None if value is None else _read(label_value, value) for key, value in asked.items()
    }
    if len(labels) < len(asked):
        raise ProblemError(Kind.BAD_REQUEST, "a label is there twice: upper and lower case are the same")
    return labels


def _changed(group: str, machines: tuple[Key, ...], changed: tuple[Key, ...], body: ChangeGroup) -> GroupChanged:
    return GroupChanged(group, _names(changed), _others(machines, changed), body.dry_run)


def _others(machines: tuple[Key, ...], changed: tuple[Key, ...]) -> tuple[str, ...]:
    ids = {key.id for key in changed}
    return _names(key for key in machines if key.id not in ids)


def _names(machines: Iterable[Key]) -> tuple[str, ...]:
    return tuple(machine.name for machine in machines)


def _read(read: Callable[[str], T], text: str) -> T:
    """Return what *read* makes of *text*. Raises ProblemError (bad-request)."""
    try:
        return read(text)
    except ValueError as error:
        raise ProblemError(Kind.BAD_REQUEST, str(error)) from error
