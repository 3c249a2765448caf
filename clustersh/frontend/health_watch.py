"""``clustersh machines --watch``: the health table, again and again."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from ..cli.invocation import Invocation
from ..cli.screen import Screen
from ..cli.text import printable
from ..rest_client import Unreachable
from ..wire.problems import Kind, ProblemError
from ..wire.rest import Machines

EVERY_S = 2.0
LEAST_REST_S = 0.5
"""Seconds between an answer and the next question, however long the answer took."""


class Live:
    """Shows what *fetch* returns as *render* writes it, every EVERY_S, until a signal: SIGINT is the ordinary end.

    On a terminal it is drawn in place; anywhere else one follows the other.
    """

    def __init__(
        self,
        reactor: Any,
        invocation: Invocation,
        fetch: Callable[[], Awaitable[Machines]],
        render: Callable[[Machines], str],
    ) -> None:
        self._reactor = reactor
        self._invocation = invocation
        self._console = invocation.console
        self._fetch = fetch
        self._render = render
        self._found = Machines(())
        self._problem = ""
        self._told = ""
        self._between = ""
        self._status: int | None = None
        self._looking: Deferred[None] | None = None
        self._resting: Deferred[None] | None = None

    async def run(self) -> int:
        """Return the exit status. Raises what the first question raises, and later what no waiting mends."""
        signals = self._invocation.signals
        signals.handler = self._signalled
        try:
            await self._look(self._ask)
            if self._invocation.json or not self._console.can_draw:
                await self._repeat(self._print)
            else:
                async with Screen(self._reactor, self._console, self._resized) as screen:
                    await self._repeat(lambda: screen.draw(self._frame()))
        finally:
            signals.handler = None
        return self._status or 0

    async def _repeat(self, show: Callable[[], Awaitable[None]]) -> None:
        next_at = self._reactor.seconds() + EVERY_S
        while self._status is None:
            await show()
            await self._rest(next_at)
            if self._status is None and self._reactor.seconds() >= next_at:
                next_at = self._reactor.seconds() + EVERY_S
                await self._look(self._ask_again)
                next_at = max(next_at, self._reactor.seconds() + LEAST_REST_S)

    # -- asking

    async def _look(self, ask: Callable[[], Any]) -> None:
        self._looking = Deferred.fromCoroutine(ask())
        try:
            await self._looking
        except CancelledError:
            pass  # a signal ends it all
        finally:
            self._looking = None

    async def _ask(self) -> None:
        self._found, self._problem = await self._fetch(), ""

    async def _ask_again(self) -> None:
        """Ask; while there is no answer the last one stays."""
        try:
            await self._ask()
        except Unreachable as error:
            self._problem = str(error)
        except ProblemError as error:
            if error.problem.kind is not Kind.UNAVAILABLE:
                raise
            self._problem = str(error)

    async def _rest(self, until: float) -> None:
        """Wait until then, or until the terminal has another size, or a signal came."""
        self._resting = deferLater(self._reactor, max(0.0, until - self._reactor.seconds()))
        try:
            await self._resting
        except CancelledError:
            pass
        finally:
            self._resting = None

    # -- showing

    async def _print(self) -> None:
        if not self._problem:
            await self._console.out(self._between + self._render(self._found))
            self._between = "" if self._invocation.json else "\n"
        elif self._problem != self._told:
            await self._console.error(self._problem)
        self._told = self._problem

    def _frame(self) -> list[str]:
        now = datetime.fromtimestamp(self._invocation.now())
        count, online = len(self._found.machines), sum(each.status == "online" for each in self._found.machines)
        head = f"{now:%H:%M:%S}  {count} machine{'' if count == 1 else 's'}, {online} online  (Ctrl-C ends)"
        said = [f"ERROR: {printable(self._problem)}"] if self._problem else []
        return [head, *said, "", *self._render(self._found).splitlines()]

    # -- what comes from outside

    def _resized(self) -> None:
        if self._resting is not None:
            self._resting.cancel()

    def _signalled(self, number: int) -> None:
        if self._status is not None:  # the terminal takes nothing any more, say
            self._invocation.signals.handler = None
            self._invocation.signals.deliver(number)
            return
        self._status = 0 if number == signal.SIGINT else 128 + number
        for under_way in (self._looking, self._resting):
            if under_way is not None:
                under_way.cancel()
