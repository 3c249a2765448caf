"""What ``[policy]`` says for a client on a machine: plain look-ups, and what is wrong with it, found at the start.

Where several parts speak of the same thing, the strictest of them holds; where none does, what holds for everyone.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from ...config import ClientPolicy, ConfigError, Force, PolicyConfig, RuleAction, TargetPolicy, dotted
from ...nodesets import NodeSetException, expand
from ...wire.problems import ProblemError
from ..expressions import Form, GroupName, group_of, read
from ..facts import SOURCES

_FORCES: tuple[Force, ...] = ("self", "approve", "never")
_ACTIONS: tuple[RuleAction, ...] = ("allow", "block", "deny")
_CLIENT = re.compile(r"[a-z0-9._@*?-]{1,128}")


class Rulebook:
    """Answers for *config*; *defaults* has the action of each rule where the configuration says nothing."""

    def __init__(self, config: PolicyConfig, defaults: Mapping[str, RuleAction]) -> None:
        self.config = config
        self.rules = {**defaults, **config.rules}
        self._clients = {name.lower(): entry for name, entry in config.client.items()}

    def of_client(self, client: str) -> tuple[ClientPolicy, ...]:
        """Return what is said of that client: by its very name alone, else by every pattern that it fits."""
        exact = self._clients.get(client)
        if exact is not None:
            return (exact,)
        return tuple(entry for name, entry in self._clients.items() if fnmatch.fnmatchcase(client, name))

    def force(self, clients: Iterable[ClientPolicy], targets: Iterable[TargetPolicy], *, ai: bool) -> Force:
        """Return who may force; *ai*: the client is an AI agent's, and is approved unless it is spoken of itself."""
        of_client = [each.force for each in clients if each.force]
        if ai and not of_client:
            of_client = ["approve", self.config.force]
        said = of_client + [each.force for each in targets if each.force]
        return max(said or [self.config.force], key=_FORCES.index)

    def action(self, rule: str, clients: Iterable[ClientPolicy], targets: Iterable[TargetPolicy]) -> RuleAction:
        """Return what is done where *rule* finds something."""
        spoken = [each.rules for each in clients] + [each.rules for each in targets]
        said = [rules[rule] for rules in spoken if rule in rules]
        return max(said or [self.rules[rule]], key=_ACTIONS.index)


def strictest(forces: Iterable[Force]) -> Force:
    """Return the strictest of *forces*."""
    return max(forces, key=_FORCES.index, default="self")


def named_groups(config: PolicyConfig) -> tuple[frozenset[str], frozenset[str]]:
    """Return the groups, and the keys of labels, that *config* names: whoever changes them changes the policy."""
    groups: set[str] = set()
    keys: set[str] = set()
    for expression in (*config.target, *(each.targets for each in config.client.values() if each.targets)):
        for group in _groups_in(expression):
            if not group.source:
                groups.add(group.name)
            elif group.source not in SOURCES:
                keys.add(group.source)
    return frozenset(groups), frozenset(keys)


def _groups_in(expression: str) -> list[GroupName]:
    words = (operand.word for operand in read(expression) if operand.form is Form.GROUP)
    return [group_of(each) for word in words for each in (expand(word) if "[" in word else [word])]


def check(config: PolicyConfig, known_rules: Iterable[str], path: Path) -> None:
    """Raise ConfigError naming the key of *path* that can't be meant so: a rule, a client's name, or a target."""
    known = sorted(known_rules)
    _check_rules(path, ["policy", "rules"], config.rules, known)
    spelled: dict[str, str] = {}
    for name, client in config.client.items():
        keys = ["policy", "client", name]
        if (other := spelled.setdefault(name.lower(), name)) != name:
            raise _wrong(path, keys, name, f"each client once: there is {other!r} too, and case doesn't matter")
        if not _CLIENT.fullmatch(name.lower()):
            raise _wrong(path, keys, name, "a client's name or a pattern such as 'joshua@mba' or 'ai-*@*'")
        _check_rules(path, [*keys, "rules"], client.rules, known)
        if client.targets is not None:
            _check_target(path, [*keys, "targets"], client.targets)
    for expression, target in config.target.items():
        keys = ["policy", "target", expression]
        _check_target(path, keys, expression)
        _check_rules(path, [*keys, "rules"], target.rules, known)


def _check_rules(path: Path, keys: list[str], rules: Mapping[str, str], known: list[str]) -> None:
    for rule in rules:
        if rule not in known:
            close = difflib.get_close_matches(rule, known, n=1)
            expected = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            where = dotted(cast("list[str | int]", [*keys, rule]))
            raise ConfigError(f"{path}: {where}: found a rule that does not exist; {expected}")


def _check_target(path: Path, keys: list[str], expression: str) -> None:
    try:
        _groups_in(expression)
    except ProblemError as error:
        raise _wrong(path, keys, expression, f"a target such as '@lab,!db1': {error}") from error
    except NodeSetException as error:
        raise _wrong(path, keys, expression, f"a target such as '@lab,!db1': {error}") from error


def _wrong(path: Path, keys: list[str], found: str, expected: str) -> ConfigError:
    return ConfigError(f"{path}: {dotted(cast('list[str | int]', keys))}: found {found!r}; expected {expected}")
