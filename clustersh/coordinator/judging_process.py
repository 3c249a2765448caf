"""The guard's worker as the coordinator sees it: a process that is handed frames and answers with frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ..cli.text import printable
from .guard_worker import HEADER, MAX_ANSWER

START_S = 20.0
"""Seconds that a worker may take until it is ready."""
KEPT = ("LD_LIBRARY_PATH", "SYSTEMROOT")
"""Variables that a Python may need to start; it gets no others."""
MAX_SAID = 2000
"""Bytes of what it says on stderr that are kept: the end has what went wrong."""


class Worker(ProcessProtocol):
    """One worker. *answered* is told each answer, None when it is ready; *died* that it is gone."""

    transport: IProcessTransport | None

    def __init__(self, reactor: Any, answered: Callable[[bytes | None], None], died: Callable[[Worker], None]) -> None:
        self._reactor = reactor
        self._answered = answered
        self._died = died
        self._received = b""
        self._said = b""
        self._limit: IDelayedCall | None = None
        self.ready = False
        """It has said so; false again once it was told to end."""
        self.was_ready = False
        self.problem = ""
        self.gone: Deferred[None] = Deferred()

    def start(self, program: tuple[str, ...]) -> None:
        """Start it, with nothing of ours but what Python needs."""
        self._limit = self._reactor.callLater(START_S, self.kill, f"it was not ready after {START_S:g} s")
        try:
            environ = {name: os.environ[name] for name in KEPT if name in os.environ}
            self._reactor.spawnProcess(self, program[0], program, env=environ)
        except OSError as error:
            self.problem = f"it can't be started: {error.strerror}"
            self._reactor.callLater(0, self._end)

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        pid: int | None = self.transport.pid if self.transport is not None else None
        return pid

    def ask(self, frame: bytes) -> None:
        """Hand it a question."""
        if self.transport is not None:
            self.transport.write(frame)

    def kill(self, problem: str) -> None:
        """End it, because of *problem*."""
        self.ready = False
        self.problem = self.problem or problem
        if self.transport is not None and self.pid is not None:
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        self._received += data
        size = int.from_bytes(self._received[:HEADER], "big")
        if size > MAX_ANSWER or len(self._received) > HEADER + size:
            self.kill("it answers nonsense")
        elif len(self._received) >= HEADER and len(self._received) == HEADER + size and not self.problem:
            answer, self._received = self._received[HEADER:], b""
            self._take(answer)

    def _take(self, answer: bytes) -> None:
        if self.was_ready:
            self._answered(answer)
            return
        self.ready = self.was_ready = True
        self._stop_limit()
        self._answered(None)

    def errReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-MAX_SAID:]

    def processExited(self, reason: Failure) -> None:
        self.ready = False
        last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
        self.problem = self.problem or printable(last) or reason.getErrorMessage()
        if self.transport is not None:
            self.transport.loseConnection()
        self._end()

    def _end(self) -> None:
        self._stop_limit()
        if not self.gone.called:
            self._died(self)
            self.gone.callback(None)

    def _stop_limit(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
