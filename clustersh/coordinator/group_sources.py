"""Where NodeSet's groups come from here: what people made of machines, their labels, and facts.

NodeSet's own sources read files and run programs; these ask the coordinator's memory. A source gives names, those of
machines that are new too: `Targets` decides what those are part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial

from ..nodesets import GroupResolver, GroupSource, GroupSourceQueryFailed
from ..wire.fleet import RESERVED_GROUPS
from .close_names import did_you_mean
from .expressions import GroupName
from .facts import SOURCES, FactBook
from .fleet import Fleet
from .group_book import GroupBook
from .registry import Registry

MAX_VALUES = 100
Groups = Mapping[str, Set[str]]
"""The ids of the machines in each group."""


class Source(GroupSource):
    """One group source, whose *groups* are looked up when it is asked; *names* turns ids into names."""

    def __init__(self, name: str, groups: Callable[[], Groups], names: Callable[[Iterable[str]], list[str]]) -> None:
        super().__init__(name)
        self._found = groups
        self._names = names

    def resolv_map(self, group: str) -> list[str]:
        """Return the names of the machines in *group*."""
        members = self._found().get(group)
        if members is None:
            raise GroupSourceQueryFailed(f"no group {group}", self)
        return self._names(members)

    def resolv_list(self) -> list[str]:
        """Return the names of the groups."""
        return list(self._found())

    def resolv_all(self) -> list[str]:
        """Return the names of the machines that are in any group of this source."""
        return self._names(set().union(*self._found().values()))


class People(Source):
    """The source without a name: people's groups, and those that are as the machines are."""

    def __init__(self, registry: Registry, fleet: Fleet, book: GroupBook) -> None:
        super().__init__("", self._all_groups, lambda ids: _names_of(registry, ids))
        self._registry = registry
        self._fleet = fleet
        self._book = book

    def _all_groups(self) -> Groups:
        return self._book.groups

    def resolv_map(self, group: str) -> list[str]:
        """Return the names of the machines in *group*."""
        roster = self._registry.roster
        if group == "new":
            return list(roster.new)
        if group in ("online", "offline"):
            there, wanted = self._fleet.not_offline, group == "online"
            return [machine.name for machine in roster.machines if (machine.id in there) is wanted]
        return super().resolv_map(group)

    def resolv_list(self) -> list[str]:
        """Return the names of the groups."""
        return sorted({*self._book.groups, *RESERVED_GROUPS} - {"all"})

    def resolv_all(self) -> list[str]:
        """Return the name of every machine."""
        return list(self._registry.roster.names)


class GroupSources:
    """Every source there is now. A source that isn't facts' is a label's, its groups that label's values."""

    def __init__(self, registry: Registry, fleet: Fleet, book: GroupBook, facts: FactBook) -> None:
        self._registry = registry
        self._book = book
        self._facts = facts
        self._people = People(registry, fleet, book)

    def resolver(self, sources: Iterable[str]) -> GroupResolver:
        """Return NodeSet's resolver of the groups that have no source, and of those in *sources*."""
        resolver = GroupResolver(self._people)
        for name in set(sources) - {""}:
            resolver.add_source(Source(name, partial(self._groups, name), self._names))
        return resolver

    def has(self, group: GroupName) -> bool:
        """Whether there is such a group."""
        if not group.source:
            return group.name == "*" or group.name in RESERVED_GROUPS or group.name in self._book.groups
        return bool(self._groups(group.source)) if group.name == "*" else group.name in self._groups(group.source)

    def meant(self, group: GroupName) -> str:
        """Return what to tell someone who asked for a group that isn't there."""
        if not group.source:
            return did_you_mean(group.name, self._people.resolv_list(), "@{}") or "see: clustersh groups"
        groups, form = list(self._groups(group.source)), f"@{group.source}:{{}}"
        if groups:
            return did_you_mean(group.name, groups, form) or f"there is {_some(groups, form)}"
        sources = [*SOURCES, *self._book.labelled]
        meant = did_you_mean(group.source, sources, "@{}:")
        return meant or f"facts and labels that machines have: {_some(sources, '@{}:')}"

    def values(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of every source but people's, at most MAX_VALUES of each."""
        sources = (*SOURCES, *sorted(self._book.labelled))
        return {source: tuple(sorted(self._groups(source))[:MAX_VALUES]) for source in sources}

    def _groups(self, source: str) -> Groups:
        return self._facts.groups[source] if source in SOURCES else self._book.labelled.get(source, {})

    def _names(self, machine_ids: Iterable[str]) -> list[str]:
        return _names_of(self._registry, machine_ids)


def _names_of(registry: Registry, machine_ids: Iterable[str]) -> list[str]:
    keys = map(registry.machine_by_id, machine_ids)
    return [key.name for key in keys if key is not None]


def _some(words: list[str], form: str) -> str:
    return ", ".join(map(form.format, sorted(words)[:5])) + (" ..." if len(words) > 5 else "")
