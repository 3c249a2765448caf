"""The bodies of the REST calls about the policy."""

from __future__ import annotations

import msgspec

from .problems import Problem


class MachinesVerdict(msgspec.Struct, frozen=True):
    """What is said of some machines: *verdict* is pass, block or deny; *where* are the words that *rule* is about."""

    machines: tuple[str, ...]
    platform: str
    verdict: str
    rule: str = ""
    why: str = ""
    where: str = ""


class PolicyTest(msgspec.Struct, frozen=True):
    """POST /v1/policy/test: whether such a run passes, and why not. Nothing was recorded, started or asked for.

    *force* is who could pass it with ``--force``: ``self``, ``approve`` (once an admin has allowed it), ``never``; ""
    where there is nothing to force. *problem* is what it would be refused for. *unjudged*: its script isn't there.
    """

    passes: bool
    verdicts: tuple[MachinesVerdict, ...]
    force: str = ""
    problem: Problem | None = None
    unjudged: bool = False


class RuleView(msgspec.Struct, frozen=True):
    """A rule and what is done (allow, block, deny) where it finds something."""

    rule: str
    action: str
    why: str


class OnTarget(msgspec.Struct, frozen=True):
    """What holds on some machines besides; *force* is None and *rules* lacks a rule where nothing is said of it."""

    target: str
    machines: tuple[str, ...]
    force: str | None = None
    rules: dict[str, str] = {}


class PolicyView(msgspec.Struct, frozen=True):
    """GET /v1/policy: what holds for the caller. Limits that are not set are None; *under_way* counts machines.

    *targets* are the machines that it may run on, one expression for each part of the policy; all of them must hold.
    *unknown* are names in expressions that are no machine or group now.
    """

    client: str
    ai: bool
    force: str
    rules: tuple[RuleView, ...]
    targets: tuple[str, ...] = ()
    machines_at_once: int | None = None
    jobs_per_minute: int | None = None
    under_way: int = 0
    on: tuple[OnTarget, ...] = ()
    unknown: tuple[str, ...] = ()


class AllowedRun(msgspec.Struct, frozen=True):
    """The run that an approval allows, once: that *command* of that *client*, on *count* machines.

    *machines* are the names of the first of them; a long command is cut here. *where* are the words that each of the
    *rules* is about. *cwd* is the directory that was asked for, *env* the names of the variables; *stdin* and *files*
    say that it is given such.
    """

    client: str
    target: str
    machines: tuple[str, ...]
    count: int
    command: str
    rules: tuple[str, ...]
    where: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[str, ...] = ()
    stdin: bool = False
    files: bool = False
