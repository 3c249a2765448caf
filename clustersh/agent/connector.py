"""Keeps a link to the coordinator: connects, says in one line why that failed, and tries again.

An agent that another one with its key has replaced (a copied home, a cloned machine) stays away for the longest
back-off, says what to do, and asks again: it gets the machine back once the other one is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.logger import Logger

from ..address import Address
from ..trust.errors import TrustError
from ..unreachable import Cause, Unreachable, explain
from ..websockets import WebSocketClientFactory
from ..wire.link import REPLACED
from .backoff import Backoff, Change
from .link import LinkClosed, LinkProtocol

LOOK_S = 5.0
"""Seconds between looks at what may have changed, while waiting."""
ENROLL_AGAIN = "run: clusteragent enroll --again"
_REFUSED = re.compile(r'upgrade failed \[40[13]\]: ([^"]*)')
"""What the WebSocket says of an answer that isn't its upgrade, and in that the coordinator's words."""


class _Failed(NamedTuple):
    """Why there is no link; *replaced*: another agent has this machine's key."""

    problem: str
    replaced: bool = False


class Connector:
    """One link at a time through *endpoint*; *on_state* is told of each change: "" connected, else why not.

    *folder* is the agent's, to be named in messages; *check_own* raises TrustError where its certificate can't be used
    now, by this machine's clock.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        factory: WebSocketClientFactory,
        address: Address,
        folder: Path,
        backoff: Backoff,
        change: Change,
        check_own: Callable[[], object],
        on_state: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = factory
        self._address = address
        self._folder = folder
        self._backoff = backoff
        self._change = change
        self._check_own = check_own
        self._on_state = on_state
        self._running: Deferred[None] | None = None
        self._link: LinkProtocol | None = None
        self._waiting: Deferred[None] | None = None
        self._said = ""

    def start(self) -> None:
        """Begin."""
        self._running = Deferred.fromCoroutine(self._keep_connected())
        self._running.addErrback(self._ended)

    async def stop(self) -> None:
        """Close the link and stay away."""
        running, self._running = self._running, None
        link = self._link
        if link is not None:
            link.hang_up("the agent stops")
            await link.closed
        if running is not None:
            running.cancel()

    def welcomed(self) -> None:
        """The link works."""
        self._backoff.reset()
        self._said = ""
        self._log.info("connected to the coordinator at {address}", address=self._address.netloc)
        self._on_state("")

    async def _keep_connected(self) -> None:
        while True:
            problem, replaced = await self._connect_once()
            if self._running is None:
                return
            self._on_state(problem)
            if problem != self._said:
                self._log.warn("not connected: {problem}", problem=problem)
                self._said = problem
            await self._wait(self._backoff.longest() if replaced else self._backoff.next())

    async def _connect_once(self) -> _Failed:
        """Have a link until it ends; return why it did."""
        try:
            link: Any = await self._endpoint.connect(self._factory)
            self._link = link
            ended: LinkClosed = await link.closed
        except CancelledError:
            raise
        except Exception as error:
            return _Failed(self._explain(error))
        finally:
            self._link = None
        return _Failed(self._explain_closed(ended), ended.code == REPLACED)

    def _explain(self, failure: BaseException) -> str:
        told = explain(failure, self._address, None)
        if not isinstance(told, Unreachable):
            return f"the connection to {self._address.netloc} failed: {failure}"
        if told.cause not in (Cause.IMPOSTOR, Cause.NOT_ACCEPTED):
            return told.message
        try:
            self._check_own()
        except TrustError as error:
            return str(error)
        return f"{told.message}; if a clock is wrong, here or there, set it; else {ENROLL_AGAIN}"

    def _explain_closed(self, ended: LinkClosed) -> str:
        # A certificate that isn't accepted ends the connection after our side of the handshake.
        if isinstance(ended.error, TlsError | VerificationError):
            return self._explain(ended.error)
        if ended.code == REPLACED:
            return (
                f"another agent with this machine's key serves {self._address.netloc} in its place; if this is a copy, "
                f"remove {self._folder} and run: clusteragent enroll {self._address.netloc} --name ANOTHER-NAME"
            )
        reason = ended.reason or "it was cut off"
        if refused := _REFUSED.search(reason):
            return f"the coordinator at {self._address.netloc} refuses this machine: {refused[1]}; {ENROLL_AGAIN}"
        return f"the link to {self._address.netloc} ended: {reason}"

    async def _wait(self, seconds: float) -> None:
        """Wait *seconds*, or until something changed that makes trying worthwhile."""
        deadline = self._reactor.seconds() + seconds
        while (left := deadline - self._reactor.seconds()) > 0:
            await self._sleep(min(left, LOOK_S))
            if self._change.happened():
                self._backoff.reset()
                return

    async def _sleep(self, seconds: float) -> None:
        done: Deferred[None] = Deferred()
        timer: IDelayedCall = self._reactor.callLater(seconds, done.callback, None)
        try:
            await done
        finally:
            if timer.active():
                timer.cancel()

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the link can't be kept", failure)
