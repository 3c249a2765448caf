"""How Tailscale reaches the machines, where the coordinator's host has it: asked of its program, now and then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..tailscale import Node
from ..tailscale_program import Report, look
from ..wire.tailnet import TailnetState
from .signals import Signal, wait_until

CACHE_S = 30.0
WAIT_S = 0.5
"""Seconds for which those who ask wait for a newer state; then the last is told, unless that is CACHE_S older still."""
_UNKNOWN = Report(TailnetState.FAILED, problem="tailscale status --json: it took too long")


class Tailnet:
    """The tailnet as the program at *find* says. Without one, or if it fails, it has no nodes."""

    _log = Logger()

    def __init__(self, reactor: Any, find: Callable[[], str | None] = lambda: shutil.which("tailscale")) -> None:
        self._reactor = reactor
        self._find = find
        self._report = _UNKNOWN
        self._nodes: dict[str, Node] = {}
        self._next_look = float("-inf")
        self._looking: Deferred[None] | None = None
        self._looked = Signal()
        self._late = False
        self._problem = ""

    async def nodes(self) -> Mapping[str, Node]:
        """Return the nodes by address."""
        await self._fresh()
        return self._nodes if self._is_known else {}

    async def report(self) -> Report:
        """Return what is known of Tailscale on this host."""
        await self._fresh()
        return self._report if self._is_known else _UNKNOWN

    @property
    def _is_known(self) -> bool:
        return bool(self._reactor.seconds() < self._next_look + CACHE_S)

    async def _fresh(self) -> None:
        if self._looking is None and self._reactor.seconds() >= self._next_look:
            self._looking = Deferred.fromCoroutine(self._look())
            self._looking.addErrback(self._failed).addBoth(self._done)
        if not self._late:
            self._late = not await wait_until(self._reactor, self._looked, lambda: self._looking is None, WAIT_S)

    async def _look(self) -> None:
        self._report = await look(self._reactor, self._find())
        self._nodes = {address: node for node in self._report.nodes for address in node.addresses}
        problem, self._problem = self._problem, self._report.problem
        if self._problem and problem != self._problem:
            self._log.warn("{reason}", reason=self._problem)

    def _failed(self, failure: Failure) -> None:
        """Tell nothing of the tailnet."""
        self._report, self._nodes = _UNKNOWN, {}
        self._log.failure("the state of Tailscale can't be read", failure)

    def _done(self, _: None) -> None:
        self._looking, self._late, self._next_look = None, False, self._reactor.seconds() + CACHE_S
        self._looked.fire()
