"""One launcher's connection, and the call that came over it: the very command that would have run in its process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol as Connection
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from ...cli.console import Console
from ...cli.errors import UNCERTAIN, CliError, OutputClosed
from ...cli.invocation import Invocation, Kept, Signals
from ...cli.program import supervise
from ..commands import choose
from . import frames
from .outlet import RelayedOutlet, RelayedStdin
from .peer import peer_of
from .place import bounds

CALL_WITHIN_S = 5.0
"""Seconds in which a launcher says what it wants."""


class Host(Protocol):
    """What a session is told of, and tells, its standby."""

    key: bytes
    bounds: list[bytes]
    home: Path
    kept: Kept

    def fresh(self) -> bool:
        """Whether the standby may take calls: nothing changed that it has read."""

    def began(self, session: Session) -> None:
        """A call begins."""

    def ended(self, session: Session) -> None:
        """A call ended, or the connection without one."""

    def state(self) -> bytes:
        """Return what `clustersh standby` shows."""

    def stop(self) -> None:
        """Take no more calls, and end once there are none."""


class Session(Connection):
    """One connection: hello, then a call and what is relayed of it, or a question."""

    transport: Any

    def __init__(self, reactor: Any, host: Host) -> None:
        self._reactor = reactor
        self._host = host
        self._frames = frames.Frames()
        self._take: dict[int, Callable[[bytes], None]] = {
            frames.HELLO: self._hello,
            frames.ASK: self._ask,
            frames.STOP: self._stop,
        }
        self._running: Deferred[int] | None = None
        self._outlet: RelayedOutlet | None = None
        self._late: Any = None
        self._pid = 0

    def connectionMade(self) -> None:
        self._pid, uid = peer_of(self.transport.getHandle())
        if uid != os.geteuid():
            self.transport.abortConnection()
            return
        self._late = self._reactor.callLater(CALL_WITHIN_S, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        try:
            for kind, payload in self._frames.feed(data):
                self._take[kind](payload)
        except (KeyError, ValueError, IndexError, UnicodeError):
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._in_time()
        if self._outlet is not None:
            self._outlet.gone()
        if self._running is not None:
            self._running.cancel()  # nobody waits for it any more; what runs elsewhere goes on

    # -- what comes

    def _hello(self, key: bytes) -> None:
        # What a sandbox says of itself may be made up; what the kernel says of its process is not.
        if key == self._host.key and bounds(str(self._pid)) == self._host.bounds and self._host.fresh():
            self._take = {frames.CALL: self._call}
            self.transport.write(frames.frame(frames.READY))
        else:
            self.transport.loseConnection()

    def _ask(self, _: bytes) -> None:
        self._in_time()
        self.transport.write(frames.frame(frames.STATE, self._host.state()))
        self.transport.loseConnection()

    def _stop(self, _: bytes) -> None:
        self._host.stop()
        self._ask(b"")

    def _call(self, payload: bytes) -> None:
        self._in_time()
        call, streams = frames.unpack(payload)
        head, environ = frames.unpack(call)
        terminals, same, sizes = frames.unpack(streams)
        outlet = self._outlet = RelayedOutlet(self.transport.write, terminals, bool(same[0]), sizes)
        stdin = RelayedStdin(self.transport.write, bool(terminals[0]))
        signals = Signals(lambda number: self._leave(128 + number))
        self._take = {
            frames.ACK: lambda told: outlet.written(frames.numbers(told)[0]),
            frames.FAILED: lambda told: _failed(outlet, told),
            frames.STDIN: stdin.came,
            frames.STDIN_FAILED: lambda told: stdin.failed(told.decode()),
            frames.SIZE: outlet.resize,
            frames.SIGNAL: lambda told: self._signalled(signals, frames.numbers(told)[0]),
        }
        key, cwd, *argv = frames.unpack(head)
        variables = dict(os.fsdecode(each).split("=", 1) for each in frames.unpack(environ))
        invocation = Invocation(
            program="clustersh",
            argv=list(map(os.fsdecode, argv)),
            cwd=Path(os.fsdecode(cwd)),
            environ=variables,
            home=self._host.home,
            console=Console(outlet, variables),
            stdin=stdin,
            signals=signals,
            in_thread=deferToThread,
            key=key.decode(),
            kept=self._host.kept,
        )
        self._host.began(self)
        self._running = Deferred.fromCoroutine(_run(self._reactor, invocation, outlet))
        self._running.addCallbacks(self._leave, self._broken)

    def _signalled(self, signals: Signals, number: int) -> None:
        self.transport.write(frames.frame(frames.TOLD))
        signals.deliver(number)

    # -- the end

    def _leave(self, status: int) -> None:
        """Tell the launcher how to exit."""
        running, self._running = self._running, None
        if running is None:
            return
        self._take = dict.fromkeys(self._take, _nothing)
        self.transport.write(frames.number(frames.EXIT, status))
        self.transport.loseConnection()
        self._host.ended(self)
        running.cancel()

    def _broken(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None or self._running is not None:
            self._leave(UNCERTAIN)

    def _in_time(self) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()


async def _run(reactor: Any, invocation: Invocation, outlet: RelayedOutlet) -> int:
    async def start(reactor: Any) -> int:
        status = await choose(invocation)(reactor)
        await outlet.settle()
        return status

    time.tzset()
    status = await supervise(invocation, start, reactor)
    with contextlib.suppress(OutputClosed, CliError):
        await outlet.settle()  # of an error too every byte is out before the launcher ends
    return status


def _failed(outlet: RelayedOutlet, told: bytes) -> None:
    stream, closed, why, size = frames.unpack(told)
    outlet.failed(stream[0], bool(closed), why.decode(), frames.numbers(size)[0])


def _nothing(_: bytes) -> None:
    """What still comes is of no use."""
