"""What the guard says of a command: the rules, and findings against them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

UNPARSABLE = "unparsable"
MAX_WHERE = 120
"""Characters of the offending words that a finding shows."""


class Action(StrEnum):
    """What happens to a command: *block* is passed by ``--force``, *deny* by nothing."""

    BLOCK = "block"
    DENY = "deny"


@dataclass(frozen=True)
class Rule:
    """One thing that commands mustn't do."""

    name: str
    action: Action
    """Unless the configuration says otherwise."""
    why: str


@dataclass(frozen=True)
class Finding:
    """That a command breaks a rule; *where* has the offending words, shortened and printable."""

    rule: str
    action: Action
    why: str
    where: str


def _rules(*rules: Rule) -> Mapping[str, Rule]:
    return MappingProxyType({rule.name: rule for rule in rules})


RULES = _rules(
    Rule("remove-root", Action.DENY, "it removes everything that is on the machine"),
    Rule("disk-format", Action.DENY, "it makes what is on a disk unreadable"),
    Rule("disk-write", Action.DENY, "it overwrites a disk from its beginning"),
    Rule("fork-bomb", Action.DENY, "it starts itself again and again until the machine stands still"),
    Rule("remove-system", Action.BLOCK, "it removes a directory that the system or its users live in"),
    Rule("permissions", Action.BLOCK, "it changes the owner or the mode of everything in a directory of the system"),
    Rule("approval", Action.DENY, "it approves something, which only somebody at the coordinator itself may"),
    Rule("kill-all", Action.BLOCK, "it ends every process that it may end"),
    Rule("power", Action.BLOCK, "it restarts the machine, switches it off or puts it to sleep"),
    Rule("plain-http", Action.BLOCK, "it runs what comes over plain HTTP, which anyone on the way can change"),
    Rule(UNPARSABLE, Action.BLOCK, "it can't be parsed, and names a dangerous program"),
)


def printable(words: Iterable[str]) -> str:
    """Return *words* as one short line without control characters."""
    text = " ".join(words)[: 4 * MAX_WHERE]
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_WHERE else text[: MAX_WHERE - 3] + "..."
