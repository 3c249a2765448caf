"""The bodies of the REST calls about many machines: targets, groups, labels, plans, and how a run goes through them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from .ids import MACHINE_NAME, RESERVED_NAMES
from .jobs import BlobRef, Command, Count, ShortText
from .link import Facts
from .policy import MachinesVerdict
from .problems import Problem

MAX_TARGET = 64 << 10
"""Characters of a target: room for thousands of names."""
Target: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_TARGET)]
Share: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?:[0-9]{1,6}|(?:100|[0-9]{1,2})%)?\Z")]
"""A number of machines, or a part of them: ``5``, ``25%``; "" is not said."""
MAX_LABELS = 64
"""Labels of one machine, and of one call."""
RESERVED_GROUPS = frozenset({"all", "online", "offline", "new"})
"""Groups that are as the machines are: nobody puts any into them."""
FACT_NAMES = frozenset(Facts.__struct_fields__)
"""Facts and labels share one syntax (``@os:linux``): no label is called as a fact is."""


def is_plain(target: str, exclude: str = "") -> bool:
    """Whether what was typed is one machine's name: it is answered in the raw form, all else in the fleet's."""
    name = target.strip().lower()
    return not exclude and name not in RESERVED_NAMES and MACHINE_NAME.fullmatch(name) is not None


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Not all at once: *canary* machines first and alone, then the others in batches of *rolling* ("": all of them).

    It stops after the first batch in which more than *max_failures* have failed in all ("": none may).
    """

    rolling: Share = ""
    canary: Count = 0
    max_failures: Share = ""

    def __post_init__(self) -> None:
        if self.rolling and not self.rolling.strip("0%"):
            raise ValueError("a batch is at least 1 machine")
        if not self.rolling and not self.canary:
            raise ValueError("what goes to all machines at once can't be stopped: say rolling or canary")


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Only *pick* machines of the target, chosen by *policy*. *raw*: one was asked for, and its raw output."""

    policy: ShortText = "least-loaded"
    pick: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    raw: bool = False


class LeftOut(msgspec.Struct, frozen=True):
    """Machines that a target would mean, were they not new: *count* of them; *machines* names the first."""

    count: int
    machines: tuple[ShortText, ...]


class PlannedMachine(msgspec.Struct, frozen=True):
    """A machine that a run would go to, in which of its batches (from 1); the rest as in Machine."""

    name: str
    status: str
    batch: int = 1
    last_seen: str | None = None
    unreached: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """POST /v1/plans: what a request would do if it came now. Nothing was recorded, and nothing is kept of it.

    *would_start*: on every machine. *problem* is what it would be refused for. *env* has the variables' names.
    *skipped*, *selected* and *left_out* as in Run. *unjudged*: its script isn't there, so the policy has not seen it.
    *verdicts* and *force* as in PolicyTest.
    """

    would_start: bool
    target: str
    command: Command
    exclude: str = ""
    machines: tuple[PlannedMachine, ...] = ()
    skipped: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    problem: Problem | None = None
    cwd: str = ""
    env: tuple[str, ...] = ()
    timeout_s: float = 0.0
    idle_timeout_s: float = 0.0
    stdin: bool = False
    files: BlobRef | None = None
    keep_files: bool = False
    unjudged: bool = False
    verdicts: tuple[MachinesVerdict, ...] = ()
    force: str = ""
    left_out: LeftOut | None = None


def group_name(text: str) -> str:
    """Fold *text*, with or without its ``@``, to a group's name, or raise ValueError saying what a name may be."""
    return _word(text.strip().removeprefix("@"), "a group's name", RESERVED_GROUPS)


def label_key(text: str) -> str:
    """Fold *text* to a label's key, or raise ValueError."""
    key = _word(text, "a label's key", RESERVED_GROUPS)
    if key in FACT_NAMES:
        raise ValueError(f"{key!r} is what machines say of themselves: a label needs another key")
    return key


def label_value(text: str) -> str:
    """Fold *text* to a label's value, or raise ValueError."""
    return _word(text, "a label's value", frozenset())


def _word(text: str, what: str, reserved: frozenset[str]) -> str:
    """Groups, keys and values are spelt as machines are, so that they can stand in a target."""
    word = text.strip().lower()
    if not MACHINE_NAME.fullmatch(word):
        raise ValueError(
            f"{text[:80]!r} can't be {what}: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit first and last"
        )
    if word in reserved:
        raise ValueError(f"{word!r} can't be {what}: it has a meaning of its own")
    return word


class TargetView(msgspec.Struct, frozen=True):
    """GET /v1/targets: the *machines* that a target means now, by name, and all of them as one short expression.

    *online* says how many of them are there; *offline* and *new* name those that aren't, and those that are new.
    *left_out* are those that it would mean, were they not new.
    *unreachable* are those of *offline* whose gateway is there.
    """

    target: str
    exclude: str
    machines: tuple[str, ...]
    folded: str
    online: int
    offline: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: LeftOut | None = None
    unreachable: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True):
    """A group and the names of its machines, those that are *new* too."""

    name: str
    machines: tuple[str, ...]
    folded: str
    new: tuple[str, ...] = ()


class Groups(msgspec.Struct, frozen=True):
    """GET /v1/groups. *values* are what facts and labels make groups of, some of each: ``{"os": ["linux"]}``."""

    groups: tuple[Group, ...]
    values: dict[str, tuple[str, ...]] = {}


class ChangeGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/groups/{name}/add and /remove. *dry_run*: only say what would change."""

    target: Target
    exclude: Target = ""
    dry_run: bool = False


class DeleteGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/groups/{name}/delete. *dry_run* as in ChangeGroup."""

    dry_run: bool = False


class GroupChanged(msgspec.Struct, frozen=True):
    """What a change of a group did: the *changed* machines came or went, those in *unchanged* were so already."""

    group: str
    changed: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    dry_run: bool = False


class ChangeLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/labels: set these labels on the target's machines; None takes one away. *dry_run* as in ChangeGroup."""

    target: Target
    labels: dict[ShortText, ShortText | None]
    exclude: Target = ""
    dry_run: bool = False


class MachineLabels(msgspec.Struct, frozen=True):
    """A machine's labels."""

    machine: str
    labels: dict[str, str]


class Labels(msgspec.Struct, frozen=True):
    """GET /v1/labels: the target's machines, those without labels too."""

    machines: tuple[MachineLabels, ...]


class LabelsChanged(msgspec.Struct, frozen=True):
    """What POST /v1/labels did: to the *changed* machines; those in *unchanged* were so already."""

    labels: dict[str, str | None]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    dry_run: bool = False
