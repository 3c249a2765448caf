"""Limits on what a client may do: on which machines, on how many at once, and how many jobs a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...config import ClientPolicy
from ...trust.identity import Identity
from ...wire.problems import Kind, ProblemError
from ..limits import RateLimit
from ..registry import Key
from .verdicts import LOOK, listed


class Busy(Protocol):
    """What is under way."""

    def at_once(self, client_id: str) -> int:
        """Return on how many machines a client's runs are, each machine counted in each run."""


class Meaning(Protocol):
    """What an expression means now."""

    def members(self, expression: str) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the names of its machines, and the names in it that are nothing now."""


@dataclass(frozen=True)
class Limits:
    """A client's: the machines it may run on must be in each of *targets*."""

    targets: tuple[str, ...]
    machines_at_once: int | None
    jobs_per_minute: int | None


def limits_of(entries: Iterable[ClientPolicy]) -> Limits:
    """Return what the parts of the policy that are about a client allow together."""
    entries = tuple(entries)
    at_once = [each.machines_at_once for each in entries if each.machines_at_once is not None]
    a_minute = [each.jobs_per_minute for each in entries if each.jobs_per_minute is not None]
    targets = tuple(dict.fromkeys(each.targets for each in entries if each.targets is not None))
    return Limits(targets, min(at_once, default=None), min(a_minute, default=None))


class ClientLimits:
    """Holds clients to their limits. *clock* gives seconds that never jump."""

    def __init__(self, meaning: Meaning, busy: Busy, clock: Callable[[], float]) -> None:
        self._meaning = meaning
        self._busy = busy
        self._clock = clock
        self._claimed: Counter[str] = Counter()
        """Machines of runs that were let pass and are not under way yet."""
        self._rates: dict[int, RateLimit] = {}

    def under_way(self, client_id: str) -> int:
        """Return on how many machines a client's runs are, or will be in a moment."""
        return self._busy.at_once(client_id) + self._claimed[client_id]

    def check(self, client: Identity, limits: Limits, machines: Sequence[str], width: int) -> None:
        """Raise ProblemError (policy) where such a run may never be; *width* machines are busy with it at once."""
        for expression in limits.targets:
            allowed, unknown = self._meaning.members(expression)
            others = [name for name in machines if name not in allowed]
            if others:
                nothing = f"it names {', '.join(unknown)}, which is nothing here now\n" if unknown else ""
                raise _refused(f"{client.name} may run on {expression} only, not on {listed(others)}", nothing + LOOK)
        most = limits.machines_at_once
        if most is not None and width > most:
            raise _refused(
                f"{client.name} may use {_counted(most, 'machine')} at once, not {width}",
                f"in batches: --rolling {most}\n{LOOK}",
            )
        most = limits.jobs_per_minute
        if most is not None and len(machines) > most:
            raise _refused(f"{client.name} may start {_counted(most, 'job')} a minute, not {len(machines)}", LOOK)

    def within(self, limits: Limits, machines: Iterable[Key]) -> list[Key]:
        """Return those of *machines* that are in each of the client's targets."""
        allowed = [self._meaning.members(expression)[0] for expression in limits.targets]
        return [machine for machine in machines if all(machine.name in names for names in allowed)]

    def check_now(self, client: Identity, limits: Limits, jobs: int, width: int) -> None:
        """Raise ProblemError (rate-limited) where `claim` would."""
        most, busy = limits.machines_at_once, self.under_way(client.id)
        if most is not None and busy + width > most:
            raise ProblemError(
                Kind.RATE_LIMITED,
                f"{client.name} may use {_counted(most, 'machine')} at once: {busy} are busy, and this needs {width}",
                hint="again when a run has ended: clustersh history --status running",
            )
        most = limits.jobs_per_minute
        if most is not None and (wait_s := self._rate(most).wait_s(client.id, jobs)):
            raise ProblemError(
                Kind.RATE_LIMITED,
                f"{client.name} may start {_counted(most, 'job')} a minute, and has",
                hint=f"again in {int(wait_s) + 1} s",
            )

    def claim(self, client: Identity, limits: Limits, jobs: int, width: int) -> None:
        """Take what the run needs, until it is under way. Raises ProblemError (rate-limited): not now."""
        self.check_now(client, limits, jobs, width)
        if limits.jobs_per_minute is not None:
            self._rate(limits.jobs_per_minute).take(client.id, jobs)
        self._claimed[client.id] += width

    def let_go(self, client: Identity, width: int) -> None:
        """The run is under way now, or won't be."""
        self._claimed[client.id] -= width
        if self._claimed[client.id] <= 0:
            del self._claimed[client.id]

    def _rate(self, most: int) -> RateLimit:
        """Return who has started how many jobs, of those that may start *most* a minute."""
        return self._rates.setdefault(most, RateLimit(self._clock, most / 60, most))


def _refused(detail: str, hint: str) -> ProblemError:
    return ProblemError(Kind.POLICY, f"refused by policy: {detail}", hint=hint)


def _counted(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
