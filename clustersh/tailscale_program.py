"""Asking Tailscale's program, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from .cli.text import printable
from .tailscale import Node, parse_backend, parse_status
from .wire.codec import WireError
from .wire.tailnet import TailnetNode, TailnetState
from .wire.units import timestamp

RUN_S = 10.0
"""Seconds that the program may take."""
MAX_ANSWER = 16 << 20
"""Bytes of its answer: room for ten thousand nodes."""
MAX_SAID = 300
"""Bytes of what it says on stderr that are kept."""
STATUS = ("status", "--json")


class TailscaleError(Exception):
    """The program can't be run, fails, or takes too much time or room."""


class Report(NamedTuple):
    """What is known of Tailscale on this host; *problem* says more where it has failed."""

    state: TailnetState
    nodes: tuple[Node, ...] = ()
    problem: str = ""


async def look(reactor: Any, program: str | None) -> Report:
    """Ask *program* (None: there is none) for the tailnet's nodes. Of one that isn't part of it, there are none."""
    if program is None:
        return Report(TailnetState.MISSING)
    try:
        answer = await run(reactor, program, STATUS)
        state = parse_backend(answer)
        return Report(state, parse_status(answer) if state is TailnetState.RUNNING else ())
    except (TailscaleError, WireError) as error:
        problem = f"tailscale {' '.join(STATUS)}: {error}"
        silent = "failed to connect to local" in problem and "which appears to be running" not in problem
        return Report(TailnetState.NO_SERVICE if silent else TailnetState.FAILED, problem=problem)


def shown(nodes: Iterable[Node]) -> tuple[TailnetNode, ...]:
    """Return what users see of *nodes*: those that Tailscale's own list shows too."""
    return tuple(
        TailnetNode(
            name=node.name,
            dns_name=node.dns_name,
            addresses=node.addresses,
            os=node.os,
            online=node.online,
            last_seen=None if node.last_seen is None else timestamp(node.last_seen),
            path=node.path,
            own=node.own,
        )
        for node in nodes
        if not node.hidden
    )


async def run(reactor: Any, program: str, words: tuple[str, ...], seconds: float = 0.0) -> bytes:
    """Return what *program* prints. Raises TailscaleError."""
    running = _Running()
    try:
        process = reactor.spawnProcess(running, program, (program, *words), env=None)
    except OSError as error:
        raise TailscaleError(f"it can't be run: {error.strerror}") from error
    process.closeStdin()
    limit = reactor.callLater(seconds or RUN_S, running.end, "it took too long")
    try:
        return await running.done
    finally:
        if limit.active():
            limit.cancel()


class _Running(ProcessProtocol):
    """Gathers what the program prints; *done* fires with it."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.end("nobody waits for it any more"))
        self._received: list[bytes] = []
        self._size = 0
        self._said = b""
        self._problem = ""

    def outReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self.end("it printed too much")
        else:
            self._received.append(data)

    def errReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[:MAX_SAID]

    def end(self, problem: str) -> None:
        """End the program, and whatever holds its output open."""
        if not self._problem:
            self._problem = problem
            self.transport.loseConnection()  # type: ignore[union-attr]
            if self.transport.pid is not None:  # type: ignore[union-attr]
                self.transport.signalProcess("KILL")  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        if not self._problem and reason.check(ProcessDone) is None:
            said = printable(" ".join(self._said.decode(errors="replace").split()))
            self._problem = f"it failed{f': {said}' if said else _how(reason.value)}"
        if self.done.called:
            return
        if self._problem:
            self.done.errback(TailscaleError(self._problem))
        else:
            self.done.callback(b"".join(self._received))


def _how(ended: Any) -> str:
    return f" (signal {ended.signal})" if ended.signal else f" (exit {ended.exitCode})"
