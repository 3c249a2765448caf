"""Groups and labels: what people say of machines. A projection of the ledger, kept in memory.

They hold machines by id: a machine that is called otherwise stays where it is, one that is forgotten is gone from all.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock

from ..trust.identity import Identity
from ..wire.fleet import MAX_LABELS
from ..wire.problems import Kind, ProblemError
from .close_names import did_you_mean
from .index import Index
from .ledger_files import Entry
from .records import Forgotten, GroupAdded, GroupDeleted, GroupRemoved, Labelled, MachineRef, Record
from .registry import Key

MAX_GROUPS = 1000
MAX_MEMBERS = 200_000
"""Machines in groups, counted in each."""
MAX_KEYS = 1000
"""Different keys of labels."""

_DELETE = "delete one: clustersh groups delete NAME"

Machines = tuple[Key, ...]


class Recorder(Protocol):
    """The ledger."""

    def append(self, record: Record) -> Deferred[Entry]:
        """Fires once *record* is durable."""


class GroupBook:
    """Every group and label. Changes are made one after the other, so that each sees what the one before did."""

    def __init__(self, ledger: Recorder) -> None:
        self._ledger = ledger
        self._lock = DeferredLock()
        self._groups: dict[str, set[str]] = {}
        self._groups_of: dict[str, set[str]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._labelled: dict[str, dict[str, set[str]]] = {}
        self._forgotten: set[str] = set()
        """A machine may have been forgotten just before the record that still speaks of it; its id never comes back."""

    async def load(self, index: Index) -> None:
        """Read from the index what there was before."""
        groups, labels = await index.ask(_read)
        for group, members in groups.items():
            self._add(group, members)
        for machine_id, key, value in labels:
            self._set_label(machine_id, key, value)

    def follow(self, entry: Entry) -> None:
        """Take in *entry*, which is durable now."""
        match record := entry.record:
            case GroupAdded():
                self._add(record.group, self._trusted(record.machines))
            case GroupRemoved():
                self._remove(record.group, [machine.id for machine in record.machines])
            case GroupDeleted():
                self._remove(record.group, list(self._groups.get(record.group, ())))
                self._groups.pop(record.group, None)
            case Labelled():
                for machine_id in self._trusted(record.machines):
                    for key, value in record.labels.items():
                        self._set_label(machine_id, key, value)
            case Forgotten():
                self._forget(record.id)

    # -- what there is

    @property
    def groups(self) -> Mapping[str, set[str]]:
        """The ids of the machines in each group."""
        return self._groups

    @property
    def labelled(self) -> Mapping[str, Mapping[str, set[str]]]:
        """The ids of the machines with each label: by its key, then by its value."""
        return self._labelled

    def groups_of(self, machine_id: str) -> tuple[str, ...]:
        """Return the names of the groups that a machine is in, sorted."""
        return tuple(sorted(self._groups_of.get(machine_id, ())))

    def labels_of(self, machine_id: str) -> dict[str, str]:
        """Return a machine's labels, sorted by their keys."""
        return dict(sorted(self._labels.get(machine_id, {}).items()))

    def members(self, group: str) -> set[str]:
        """Return the ids of a group's machines. Raises ProblemError (unknown-group)."""
        if group not in self._groups:
            raise unknown_group(group, self._groups)
        return self._groups[group]

    # -- changes: each returns the machines that it changed, in their order

    async def add(self, group: str, machines: Machines, client: Identity, *, dry_run: bool = False) -> Machines:
        """Put *machines* into a group, which need not exist. Raises ProblemError."""
        async with _Turn(self._lock):
            there = self._groups.get(group, set())
            changed = tuple(machine for machine in machines if machine.id not in there)
            self._check_room(group, len(changed))
            if changed and not dry_run:
                await self._ledger.append(GroupAdded(group, _references(changed), client.name, client.id))
            return changed

    async def remove(self, group: str, machines: Machines, client: Identity, *, dry_run: bool = False) -> Machines:
        """Take *machines* out of a group. Raises ProblemError."""
        async with _Turn(self._lock):
            there = self.members(group)
            changed = tuple(machine for machine in machines if machine.id in there)
            if changed and not dry_run:
                await self._ledger.append(GroupRemoved(group, _references(changed), client.name, client.id))
            return changed

    async def delete(self, group: str, client: Identity, *, dry_run: bool = False) -> set[str]:
        """End a group; return the ids of the machines that were in it. Raises ProblemError."""
        async with _Turn(self._lock):
            members = set(self.members(group))
            if not dry_run:
                await self._ledger.append(GroupDeleted(group, client.name, client.id))
            return members

    async def label(
        self, machines: Machines, labels: dict[str, str | None], client: Identity, *, dry_run: bool = False
    ) -> Machines:
        """Set labels of *machines*; None takes one away. Raises ProblemError."""
        async with _Turn(self._lock):
            changed = tuple(machine for machine in machines if self._would_change(machine.id, labels))
            self._check_labels(changed, labels)
            if changed and not dry_run:
                await self._ledger.append(Labelled(_references(changed), labels, client.name, client.id))
            return changed

    def _check_room(self, group: str, more: int) -> None:
        if group not in self._groups and len(self._groups) >= MAX_GROUPS:
            raise _full(f"there are {MAX_GROUPS} groups already", _DELETE)
        if sum(map(len, self._groups.values())) + more > MAX_MEMBERS:
            raise _full(f"groups hold at most {MAX_MEMBERS} machines in all", _DELETE)

    def _check_labels(self, machines: Machines, labels: dict[str, str | None]) -> None:
        taken = {key for key, value in labels.items() if value is None}
        given = labels.keys() - taken
        if len(self._labelled.keys() | given) > MAX_KEYS:
            raise _full(f"labels have at most {MAX_KEYS} different keys", "take some away: clustersh label all KEY-")
        for machine in machines:
            if len((self._labels.get(machine.id, {}).keys() | given) - taken) > MAX_LABELS:
                raise _full(f"{machine.name} would have more than {MAX_LABELS} labels", "take some away: KEY-")

    def _would_change(self, machine_id: str, labels: dict[str, str | None]) -> bool:
        own = self._labels.get(machine_id, {})
        return any(own.get(key) != value for key, value in labels.items())

    # -- in memory

    def _trusted(self, machines: Iterable[MachineRef]) -> list[str]:
        return [machine.id for machine in machines if machine.id not in self._forgotten]

    def _add(self, group: str, machine_ids: Iterable[str]) -> None:
        members = self._groups.setdefault(group, set())
        for machine_id in machine_ids:
            members.add(machine_id)
            self._groups_of.setdefault(machine_id, set()).add(group)

    def _remove(self, group: str, machine_ids: Iterable[str]) -> None:
        members = self._groups.get(group, set())
        for machine_id in machine_ids:
            if machine_id in members:
                members.discard(machine_id)
                self._groups_of[machine_id].discard(group)

    def _set_label(self, machine_id: str, key: str, value: str | None) -> None:
        own = self._labels.setdefault(machine_id, {})
        before = own.pop(key, None)
        if before is not None:
            self._labelled[key][before].discard(machine_id)
            if not self._labelled[key][before]:
                del self._labelled[key][before]
            if not self._labelled[key]:
                del self._labelled[key]
        if value is not None:
            own[intern(key)] = intern(value)
            self._labelled.setdefault(key, {}).setdefault(value, set()).add(machine_id)
        if not own:
            del self._labels[machine_id]

    def _forget(self, machine_id: str) -> None:
        self._forgotten.add(machine_id)
        for group in list(self._groups_of.get(machine_id, ())):
            self._remove(group, [machine_id])
        self._groups_of.pop(machine_id, None)
        for key in list(self._labels.get(machine_id, ())):
            self._set_label(machine_id, key, None)


class _Turn:
    """``async with`` for Twisted's lock."""

    def __init__(self, lock: DeferredLock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def unknown_group(group: str, known: Iterable[str]) -> ProblemError:
    """Return the problem that there is no such group, with the close matches."""
    hint = did_you_mean(group, list(known), "@{}") or "see: clustersh groups"
    return ProblemError(Kind.UNKNOWN_GROUP, f"no group is called @{group}", hint=hint)


def _references(machines: Machines) -> tuple[MachineRef, ...]:
    return tuple(MachineRef(machine.name, machine.id) for machine in machines)


def _full(detail: str, hint: str) -> ProblemError:
    return ProblemError(Kind.BAD_REQUEST, detail, hint=hint)


def _read(connection: sqlite3.Connection) -> tuple[dict[str, set[str]], list[tuple[str, str, str]]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for row in connection.execute("SELECT name FROM groups"):
        groups[row["name"]] = set()
    for row in connection.execute("SELECT name, machine_id FROM members"):
        groups[row["name"]].add(row["machine_id"])
    labels = connection.execute("SELECT machine_id, key, value FROM labels")
    return dict(groups), [(row["machine_id"], row["key"], row["value"]) for row in labels]
