"""The one gesture for every yes: an admin types the code of a login, an enrollment or a run that the policy stopped."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..wire.problems import Kind, ProblemError
from ..wire.rest import Approved, Pending
from .limits import RateLimit
from .pairing import WRONG_BURST, WRONG_RATE, Pairings
from .policy.overrides import Override, Overrides
from .refusals import Refusals

_EVERYONE = "everyone"
_CLOSED_S = 60.0


class Approvals:
    """What waits for a code, whatever it is. Wrong codes are counted: after some, none is taken for a while."""

    def __init__(self, pairings: Pairings, overrides: Overrides, clock: IReactorTime, refusals: Refusals) -> None:
        self._log = Logger()
        self._pairings = pairings
        self._overrides = overrides
        self._clock = clock
        self._refusals = refusals
        self._wrong = RateLimit(clock.seconds, WRONG_RATE, WRONG_BURST)
        self._closed_until = float("-inf")

    def pending(self) -> list[Pending]:
        """Return who and what waits, and never a code."""
        return [*self._pairings.pending(), *self._overrides.pending()]

    async def approve(self, typed: str, approver: str, *, ai: bool = False, dry_run: bool = False) -> Approved:
        """Let in whoever has the code *typed*, as an AI agent's client with *ai*; or allow the run that has it.

        With *dry_run* only tell who that is: but wrong codes count, and what shares a code is refused.

        Raises ProblemError: WRONG_CODE, RATE_LIMITED, or why it can't be.
        """
        self._check_not_closed()
        code = typed.strip().lower()
        pairings, runs = self._pairings.with_code(code), self._overrides.with_code(code)
        if len(pairings) + len(runs) > 1:
            for pairing in pairings:
                self._pairings.drop(pairing)
            for run in runs:
                self._overrides.take(run)
            raise ProblemError(
                Kind.WRONG_CODE,
                f"{len(pairings) + len(runs)} requests have this code, so all of them were refused",
                hint="have the right one ask again",
            )
        if pairings:
            return await self._pairings.approve(pairings[0], ai=ai, dry_run=dry_run)
        if runs:
            return self._allow(runs[0], approver, ai=ai, dry_run=dry_run)
        self._count_wrong()
        raise ProblemError(
            Kind.WRONG_CODE,
            "no pending request has this code: mistyped, expired, or somebody sits in between",
            hint="if that login reports success, it is talking to an impostor: run `clustersh logout` there\n"
            "a run's code is good once, and for 10 minutes: run it again, which tells another",
        )

    def _allow(self, run: Override, approver: str, *, ai: bool, dry_run: bool) -> Approved:
        if ai:
            raise ProblemError(Kind.BAD_REQUEST, "--ai is for clients, and this is a run", hint="leave it out")
        if dry_run:
            return Approved(run.run.client, "run", allowed=run.run)
        allowed = self._overrides.approve(run, approver)
        self._log.info(
            "{approver} allowed {client} on {target}: {command}",
            approver=approver,
            client=allowed.client,
            target=allowed.target,
            command=allowed.command[:200],
        )
        return Approved(allowed.client, "run", allowed=allowed)

    def _check_not_closed(self) -> None:
        left = self._closed_until - self._clock.seconds()
        if left > 0:
            raise ProblemError(
                Kind.RATE_LIMITED, f"too many wrong codes: no code is taken for {left:.0f} s", hint="then try again"
            )

    def _count_wrong(self) -> None:
        self._refusals.note("the admin", "wrong code")
        if not self._wrong.take(_EVERYONE):
            self._closed_until = self._clock.seconds() + _CLOSED_S
