"""How Tailscale reaches the machines, where the coordinator's host has it: asked of its program, now and then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..tailscale import Node, parse_status
from ..wire.codec import WireError
from .signals import Signal, wait_until

CACHE_S = 30.0
WAIT_S = 0.5
"""Seconds for which those who ask wait for a newer state; then the last is told, unless that is CACHE_S older still."""
RUN_S = 10.0
"""Seconds that the program may take."""
MAX_ANSWER = 16 << 20
"""Bytes of its answer: room for ten thousand nodes."""
WORDS = ("status", "--json")


class Tailnet:
    """The nodes by their addresses, as the program at *find* says. Without one, or if it fails, there are none."""

    _log = Logger()

    def __init__(self, reactor: Any, find: Callable[[], str | None] = lambda: shutil.which("tailscale")) -> None:
        self._reactor = reactor
        self._find = find
        self._nodes: dict[str, Node] = {}
        self._next_look = float("-inf")
        self._looking: Deferred[None] | None = None
        self._looked = Signal()
        self._late = False
        self._problem = ""

    async def nodes(self) -> Mapping[str, Node]:
        """Return the nodes by address."""
        if self._looking is None and self._reactor.seconds() >= self._next_look:
            self._looking = Deferred.fromCoroutine(self._look())
            self._looking.addErrback(self._failed).addBoth(self._done)
        if not self._late:
            self._late = not await wait_until(self._reactor, self._looked, lambda: self._looking is None, WAIT_S)
        return self._nodes if self._reactor.seconds() < self._next_look + CACHE_S else {}

    async def _look(self) -> None:
        program = self._find()
        answer = await _run(self._reactor, program) if program is not None else b"{}"
        self._nodes = {address: node for node in parse_status(answer) for address in node.addresses}
        self._problem = ""

    def _failed(self, failure: Failure) -> None:
        """Tell nothing of the tailnet; log it once."""
        self._nodes = {}
        problem, self._problem = self._problem, failure.getErrorMessage()
        if failure.check(WireError, OSError) is None:
            self._log.failure("the state of Tailscale can't be read", failure)
        elif problem != self._problem:
            self._log.warn("tailscale status --json: {reason}", reason=self._problem)

    def _done(self, _: None) -> None:
        self._looking, self._late, self._next_look = None, False, self._reactor.seconds() + CACHE_S
        self._looked.fire()


async def _run(reactor: Any, program: str) -> bytes:
    """Return what *program* prints. Raises OSError where it can't be run, fails, or takes too much time or room."""
    running = _Running()
    process = reactor.spawnProcess(running, program, (program, *WORDS), env=None)
    process.closeStdin()
    limit = reactor.callLater(RUN_S, running.end, "it took too long")
    try:
        return await running.done
    finally:
        if limit.active():
            limit.cancel()


class _Running(ProcessProtocol):
    """Gathers what the program prints; *done* fires with it."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._received: list[bytes] = []
        self._size = 0
        self._problem = ""

    def outReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self.end("it printed too much")
        else:
            self._received.append(data)

    def end(self, problem: str) -> None:
        """End the program, and whatever holds its output open."""
        if not self._problem:
            self._problem = problem
            self.transport.loseConnection()  # type: ignore[union-attr]
            if self.transport.pid is not None:  # type: ignore[union-attr]
                self.transport.signalProcess("KILL")  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        if not self._problem and reason.check(ProcessDone) is None:
            self._problem = "it failed"
        if self._problem:
            self.done.errback(OSError(self._problem))
        else:
            self.done.callback(b"".join(self._received))
