"""What a run is for, once that is decided: its machines, what it costs, and its record."""

from __future__ import annotations

from dataclasses import dataclass

from ..trust.identity import Identity
from ..wire.fleet import LeftOut
from ..wire.problems import Kind, ProblemError
from ..wire.rest import RunRequest
from .recent_runs import JOB_WEIGHT
from .records import MachineRef, RunRequested
from .registry import Key

MAX_SENT = 256 << 20
"""Bytes of command and environment that one run may send to all of its machines together."""


@dataclass(frozen=True)
class Chosen:
    """The machines that a run is for; *skipped* are the names of those that were offline and left out.

    *left_out* are those that its target would mean, were they not new.
    """

    machines: tuple[Key, ...]
    named: frozenset[str]
    skipped: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    left_out: LeftOut | None = None


def run_record(
    caller: Identity,
    key: str,
    digest: str,
    asked: RunRequest,
    uuid: str,
    machines: tuple[MachineRef, ...],
    chosen: Chosen,
) -> RunRequested:
    """Return what the ledger says of the request, which makes *machines* the run's for good."""
    return RunRequested(
        uuid=uuid,
        client=caller.name,
        client_id=caller.id,
        key=key,
        digest=digest,
        target=asked.target,
        machines=machines,
        command=asked.command,
        cwd=asked.cwd,
        env=tuple(sorted(asked.env)),
        timeout_s=asked.timeout_s,
        idle_timeout_s=asked.idle_timeout_s,
        stdin=asked.stdin,
        files=asked.files,
        keep_files=asked.keep_files,
        exclude=asked.exclude,
        pace=asked.pace,
        raw=asked.raw,
        skipped=chosen.skipped,
        selected=chosen.selected,
        left_out=chosen.left_out,
    )


def weight_of(asked: RunRequest, machines: int) -> int:
    """Return what a run takes in memory until it has ended. Raises ProblemError where sending it would take too much.

    A command waits for each machine by itself, until the machine has taken it.
    """
    said = len(asked.command.text) + sum(len(name) + len(value) for name, value in asked.env.items())
    if said * machines > MAX_SENT:
        raise ProblemError(
            Kind.TOO_LARGE,
            f"{said} bytes of command and environment are too much for {machines} machines at once",
            hint="send it as --script or --file, which machines fetch for themselves",
        )
    return said + JOB_WEIGHT * machines
