"""Runs that were stopped and may be allowed by an admin, each by its code: 8 hex digits, for one run, once.

They are kept in memory: after a restart nobody has asked and nothing is allowed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from ...trust.identity import Identity
from ...wire.policy import AllowedRun
from ...wire.problems import Kind, ProblemError
from ...wire.rest import Pending

GOOD_FOR_S = 600.0
"""Seconds in which a code must be typed, and in which the run must come then."""
MAX_EACH = 20
MAX_ALL = 1000
_CODE = re.compile(r"[0-9a-f]{8}")


@dataclass
class Override:
    """One run that was stopped. *digest* is of all that it would do, *machines* (their ids) are where.

    *approver* is "" until it is allowed.
    """

    client_id: str
    digest: str
    machines: frozenset[str]
    code: str
    run: AllowedRun
    begun: float
    expires: float
    approver: str = ""


_Key = tuple[str, str, frozenset[str]]


def _key(override: Override) -> _Key:
    return override.client_id, override.digest, override.machines


class Overrides:
    """Every one that waits, or was allowed and did not come yet. *random* returns that many random bytes."""

    def __init__(self, clock: IReactorTime, random: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random = random
        self._overrides: dict[_Key, Override] = {}

    def find(self, client: Identity, digest: str, machines: frozenset[str]) -> Override | None:
        """Return the one of that client for exactly that run."""
        self._expire()
        return self._overrides.get((client.id, digest, machines))

    def anywhere(self, client: Identity, digest: str) -> list[Override]:
        """Return those of that client for that run, wherever; those that are allowed come first, then the oldest."""
        self._expire()
        found = [each for key, each in self._overrides.items() if key[:2] == (client.id, digest)]
        return sorted(found, key=lambda each: not each.approver)

    def ask(self, client: Identity, digest: str, machines: frozenset[str], run: AllowedRun) -> Override:
        """Return a new one, with its code. Raises ProblemError where too many wait."""
        self._expire()
        each = sum(client_id == client.id for client_id, _, _ in self._overrides)
        if each >= MAX_EACH or len(self._overrides) >= MAX_ALL:
            raise ProblemError(
                Kind.RATE_LIMITED,
                "refused by policy, and too many runs wait for an approval already",
                hint="have one approved (clusterd pending), or ask again in 10 minutes",
            )
        taken = {override.code for override in self._overrides.values()}
        code = next(code for code in iter(lambda: self._random(4).hex(), "") if code not in taken)
        now = self._clock.seconds()
        made = Override(client.id, digest, machines, code, run, now, now + GOOD_FOR_S)
        self._overrides[_key(made)] = made
        return made

    def take(self, override: Override) -> None:
        """It is used now, and good no more."""
        self._overrides.pop(_key(override), None)

    def give_back(self, override: Override) -> None:
        """The run for which it was taken did not come about; what was asked for again meanwhile is allowed."""
        waiting = self._overrides.setdefault(_key(override), override)
        if not waiting.approver:
            waiting.approver, waiting.expires = override.approver, override.expires

    def minutes_left(self, override: Override) -> int:
        """Return for how long it is good, in minutes, rounded up."""
        return max(1, -int(-(override.expires - self._clock.seconds()) // 60))

    def forget_client(self, client_id: str) -> None:
        """That client lost its trust: nothing of it is allowed."""
        for override in [each for each in self._overrides.values() if each.client_id == client_id]:
            self.take(override)

    # -- the admin's

    def with_code(self, typed: str) -> list[Override]:
        """Return those that have the code *typed*."""
        self._expire()
        if not _CODE.fullmatch(typed):
            return []
        return [each for each in self._overrides.values() if hmac.compare_digest(each.code, typed)]

    def approve(self, override: Override, approver: str) -> AllowedRun:
        """Allow it, from now on for a while; once more is the same."""
        if not override.approver:
            override.approver = approver
            override.expires = self._clock.seconds() + GOOD_FOR_S
        return override.run

    def pending(self) -> list[Pending]:
        """Return what waits for an approval, oldest first, and never a code."""
        self._expire()
        now = self._clock.seconds()
        return [
            Pending(
                each.run.client, "run", "", round(now - each.begun, 3), f"{each.run.command[:200]} on {each.run.target}"
            )
            for each in self._overrides.values()
            if not each.approver
        ]

    def _expire(self) -> None:
        now = self._clock.seconds()
        for override in [each for each in self._overrides.values() if each.expires <= now]:
            self.take(override)
