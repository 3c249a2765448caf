"""Targets: what a user types to name machines, and which machines that means now.

The syntax and its meaning are ClusterShell's NodeSet: it makes the names in brackets, and its resolver asks our group
sources. What is joined is joined as Python's sets: the same, and the numbers in names don't matter for how long it
takes. Unlike NodeSet, a name or a group that doesn't exist is an error, in what is excluded too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import NamedTuple

from ..folding import natural
from ..nodesets import NodeSetException, expand
from ..wire.fleet import LeftOut, is_plain
from ..wire.problems import Kind, ProblemError
from .close_names import did_you_mean, patterns_meant
from .expressions import Form, GroupName, Operand, group_of, read, shown
from .group_sources import GroupSources
from .registry import Key, Registry

_FEW = 200
_TOLD = 5
"""Unknown names that an error tells of."""
_LEFT_OUT = 20
"""New machines that are named where they are left out: anybody may let many in, under long names."""


@dataclass(frozen=True)
class Resolved:
    """The machines that a target means, in order; *named* are the ids of those it says by name.

    *left_out* are those that it would mean, were they not new.
    """

    machines: tuple[Key, ...]
    named: frozenset[str]
    left_out: LeftOut | None = None


class Targets:
    """Resolves targets. *new_wait*: machines that are new are part of a target only where it says their names."""

    def __init__(self, registry: Registry, sources: GroupSources, *, new_wait: bool = True) -> None:
        self._registry = registry
        self._sources = sources
        self.new_wait = new_wait

    def resolve(self, target: str, exclude: str = "") -> Resolved:
        """Return the machines that *target* means, without those of *exclude*.

        Raises ProblemError: unknown-machine or unknown-group with close matches, empty-target, bad-request.
        """
        if is_plain(target, exclude):  # on the path of every run
            machine = self._registry.machine(target)
            return Resolved((machine,), frozenset((machine.id,)))
        return self._resolve(target, exclude)

    def excluded(self, exclude: str) -> frozenset[str]:
        """Return the ids of the machines that *exclude* takes away from what no target restricts, new ones too.

        Raises ProblemError: unknown-machine, unknown-group, bad-request.
        """
        meaning = _Meaning(self._registry, self._sources)
        names = _join(meaning.of(exclude), frozenset())
        meaning.check_known()
        return frozenset(machine.id for name in names if (machine := self._registry.find(name)) is not None)

    def members(self, expression: str) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the names of the machines that *expression* means, new ones too, and the words that are nothing now.

        For expressions that outlive the machines and groups in them. Raises ProblemError (bad-request).
        """
        meaning = _Meaning(self._registry, self._sources)
        names = _join(meaning.of(expression), frozenset())
        return frozenset(names.intersection(self._registry.roster.names)), meaning.unknown

    def _resolve(self, target: str, exclude: str) -> Resolved:
        meaning = _Meaning(self._registry, self._sources)
        wanted, unwanted = meaning.of(target), meaning.of(exclude) if exclude.strip() else []
        meaning.check_known()
        said = {name for term in wanted if term.said and term.operator != "!" for name in term.names}
        hidden = self._registry.roster.new - said if self.new_wait else frozenset()
        matched, excluded = _join(wanted, hidden), _join(unwanted, frozenset())
        machines = self._in_order(matched - excluded, wanted)
        with_new = _join(wanted, frozenset()) - excluded if hidden else frozenset()
        if not machines:
            raise self._nothing(target, exclude, matched, with_new)
        named = frozenset(machine.id for machine in machines if machine.name in said)
        return Resolved(machines, named, _left_out(with_new & hidden - matched))

    def _in_order(self, names: Set[str], terms: list[_Term]) -> tuple[Key, ...]:
        """Return the machines as they stand in a plain list of names (its first one goes first), else by name."""
        if all(term.said and term.operator == "," and len(term.names) == 1 for term in terms):
            typed = dict.fromkeys(name for term in terms for name in term.names)
            return tuple(m for name in typed if name in names and (m := self._registry.find(name)) is not None)
        if len(names) > _FEW:
            return tuple(machine for machine in self._registry.roster.machines if machine.name in names)
        return tuple(machine for name in sorted(names) if (machine := self._registry.find(name)) is not None)

    def _nothing(self, target: str, exclude: str, matched: Set[str], with_new: Set[str]) -> ProblemError:
        detail = f"{shown(target)} without {shown(exclude)}" if exclude.strip() else shown(target)
        if matched:
            hint = f"{_count(matched)}, but all are excluded"
        elif with_new:
            hint = (
                f"{_count(with_new)}, but nobody has named or accepted any yet: clustersh targets @new\n"
                "name them, or on the coordinator: clusterd accept NAME"
            )
        elif not self._registry.roster.names:
            hint = "no machine has joined yet: run clusteragent enroll on one"
        else:
            hint = "see: clustersh machines, clustersh groups"
        return ProblemError(Kind.EMPTY_TARGET, f"{detail} is no machine now", hint=hint)


class _Term(NamedTuple):
    """An operand with the *names* that it means. *said*: each stands there itself. *asks_new*: it is ``@new``."""

    operator: str
    names: Set[str]
    said: bool = False
    asks_new: bool = False


class _Meaning:
    """Looks up the words of one request; remembers each, and what is unknown."""

    def __init__(self, registry: Registry, sources: GroupSources) -> None:
        self._registry = registry
        self._sources = sources
        self._names = registry.roster.names
        self._known: dict[str, Set[str]] = {}
        self._unknown: dict[str, None] = {}
        self._unlike: dict[str, None] = {}
        self._no_groups: dict[GroupName, None] = {}

    def of(self, text: str) -> list[_Term]:
        """Return the terms of *text*. Raises ProblemError (bad-request)."""
        return [
            _Term(
                operand.operator,
                self._names_of(operand),
                operand.form in (Form.NAME, Form.NAMES),
                operand.word == "@new",
            )
            for operand in read(text)
        ]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names, patterns and groups so far that don't exist."""
        return (*self._unknown, *self._unlike, *map(_group_text, self._no_groups))

    def check_known(self) -> None:
        """Raise ProblemError (unknown-machine, unknown-group) if a name or group so far doesn't exist."""
        machines, unlike, groups = list(self._unknown), list(self._unlike), list(self._no_groups)
        said = [f"no machine is called {_listed(map(repr, machines))}"] if machines else []
        said += [f"no machine's name is like {_listed(map(repr, unlike))}"] if unlike else []
        said += [f"no group is called {_listed(map(_group_text, groups))}"] if groups else []
        if not said:
            return
        meant = [(name, did_you_mean(name, self._names)) for name in machines[:3]]
        meant += [(pattern, patterns_meant(pattern, self._names)) for pattern in unlike[:3]]
        meant += [(_group_text(group), self._sources.meant(group)) for group in groups[:3]]
        alone = len(machines) + len(unlike) + len(groups) == 1
        hints = [hint if alone else f"{word}: {hint}" for word, hint in meant if hint]
        raise ProblemError(
            Kind.UNKNOWN_MACHINE if machines or unlike else Kind.UNKNOWN_GROUP,
            "; ".join(said),
            hint="\n".join(hints) or "see: clustersh machines, clustersh groups",
        )

    def _names_of(self, operand: Operand) -> Set[str]:
        names = self._known.get(operand.word)
        if names is None:
            names = self._known[operand.word] = self._look_up(operand)
        return names

    def _look_up(self, operand: Operand) -> Set[str]:
        match operand.form:
            case Form.ALL:
                return frozenset(self._names)
            case Form.NAME:
                return self._machines([operand.word])
            case Form.NAMES:
                return self._machines(_expanded(operand.word))
            case Form.GLOB:
                return self._like(_expanded(operand.word))
            case Form.GROUP:
                return self._in_groups([group_of(word) for word in _expanded(operand.word)])

    def _machines(self, names: list[str]) -> Set[str]:
        self._unknown.update((name, None) for name in names if self._registry.find(name) is None)
        return frozenset(names)

    def _like(self, globs: list[str]) -> Set[str]:
        found: set[str] = set()
        for glob in globs:
            like = list(filter(re.compile(fnmatch.translate(glob)).match, self._names))
            if not like:
                self._unlike[glob] = None
            found.update(like)
        return found

    def _in_groups(self, groups: list[GroupName]) -> Set[str]:
        there = [group for group in groups if self._sources.has(group)]
        self._no_groups.update((group, None) for group in groups if group not in there)
        resolver = self._sources.resolver(group.source for group in there)
        found: set[str] = set()
        for source, name in there:
            # It gives lists of names, each joined by commas: NodeSet would read them as expressions.
            for nodes in resolver.all_nodes(source) if name == "*" else resolver.group_nodes(name, source):
                found.update(nodes.split(","))
        return found


def _join(terms: Iterable[_Term], hidden: Set[str]) -> set[str]:
    """Return what the terms mean together, from left to right, where nothing but ``@new`` holds what is *hidden*.

    What is taken away is taken away wherever it is.
    """
    result: set[str] = set()
    for term in terms:
        names = term.names
        if hidden and not term.said and not term.asks_new and term.operator != "!":
            names = names - hidden
        match term.operator:
            case ",":
                result |= names
            case "!":
                result -= names
            case "&":
                result &= names
            case "^":
                result ^= names
    return result


def _left_out(names: Set[str]) -> LeftOut | None:
    return LeftOut(len(names), tuple(sorted(names, key=natural)[:_LEFT_OUT])) if names else None


def _expanded(word: str) -> list[str]:
    """Return what the brackets of *word* stand for: they were counted, it is not too much."""
    if "[" not in word:
        return [word]
    try:
        return expand(word)
    except NodeSetException as error:
        raise ProblemError(Kind.BAD_REQUEST, f"{shown(word)} can't be read: {error}"[:500]) from error


def _group_text(group: GroupName) -> str:
    return f"@{group.source}:{group.name}" if group.source else f"@{group.name}"


def _count(names: Set[str]) -> str:
    return "1 machine matches" if len(names) == 1 else f"{len(names)} machines match"


def _listed(words: Iterable[str]) -> str:
    """Return *words* in a row, the last ones only as a number where they are many."""
    every = list(words)
    more = len(every) - _TOLD
    return " or ".join(every) if more <= 0 else f"{', '.join(every[:_TOLD])} or {more} more"
