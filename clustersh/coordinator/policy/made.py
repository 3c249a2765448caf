"""The policy, put together of the coordinator's parts."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from ...config import PolicyConfig
from ...wire.jobs import MAX_SCRIPT
from ...wire.problems import Kind, ProblemError
from ..fleet import Fleet
from ..open_runs import RunTable
from ..registry import Registry
from ..targets import Targets
from .kin import Kin, kin_of
from .overrides import Overrides
from .policy import Judge, Policy, World


class Blobs(Protocol):
    """The blob store."""

    def has(self, sha256: str) -> bool:
        """Whether it is there."""

    def path(self, sha256: str) -> Path:
        """Return where it is."""


class Sight(NamedTuple):
    """The parts that the policy sees."""

    registry: Registry
    fleet: Fleet
    targets: Targets
    table: RunTable
    blobs: Blobs


def make_policy(
    config: PolicyConfig, clock: IReactorTime, sight: Sight, judge: Judge, secret: bytes, host: str = ""
) -> tuple[Policy, Overrides]:
    """Return the policy, and the runs that wait for an approval."""

    def kin(machine_id: str) -> Kin:
        seen = sight.fleet.seen.get(machine_id)
        return kin_of(seen.facts.platform, seen.facts.executor) if seen else kin_of("", "")

    async def script(sha256: str) -> bytes | None:
        return await deferToThread(_read, sight.blobs, sha256)

    overrides = Overrides(clock, secrets.token_bytes)
    sight.registry.watch_ended(lambda key: overrides.forget_client(key.id))
    world = World(sight.targets, sight.table, kin, sight.registry.is_ai, script, clock.seconds)
    return Policy(config, judge, world, overrides, secret, host), overrides


def _read(blobs: Blobs, sha256: str) -> bytes | None:
    """Return a script, None where it isn't there. Raises ProblemError (too-large): any blob may be called one."""
    try:
        if not blobs.has(sha256):
            return None
        path = blobs.path(sha256)
        if path.stat().st_size <= MAX_SCRIPT:
            return path.read_bytes()
    except (OSError, ProblemError):  # it was let go of just now
        return None
    said = f"a script is at most {MAX_SCRIPT >> 20} MiB"
    raise ProblemError(Kind.TOO_LARGE, said, hint="send what it needs with --file, and run that")
