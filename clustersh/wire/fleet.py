"""The bodies of the REST calls about many machines: targets, groups, labels, plans, and how a run goes through them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from .ids import MACHINE_NAME, RESERVED_NAMES
from .jobs import BlobRef, Command, Count, ShortText
from .problems import Problem

MAX_TARGET = 64 << 10
"""Characters of a target: room for thousands of names."""
Target: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_TARGET)]
Share: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?:[0-9]{1,6}|(?:100|[0-9]{1,2})%)?\Z")]
"""A number of machines, or a part of them: ``5``, ``25%``; "" is not said."""


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


class PlannedMachine(msgspec.Struct, frozen=True):
    """A machine that a run would go to, in which of its batches (from 1); the rest as in Machine."""

    name: str
    status: str
    batch: int = 1
    last_seen: str | None = None
    new: bool = False


class Plan(msgspec.Struct, frozen=True):
    """POST /v1/plans: what a request would do if it came now. Nothing was recorded, and nothing is kept of it.

    *would_start*: on every machine. *problem* is what it would be refused for. *env* has the variables' names.
    *skipped* and *selected* as in Run.
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
