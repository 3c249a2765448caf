"""Connections to one server that are kept for the next request: the last used is the next, if it is still alive."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import HTTPConnectionPool, ResponseFailed
from twisted.web.http_headers import Headers

from .http_bodies import Watch

AT_MOST = 8
KEPT_S = 60.0
"""Seconds that a connection is kept for another request: less than the coordinator keeps its end of it."""
TRUSTED_S = 2.0
"""Seconds after an answer in which a connection is taken to be alive."""
PATIENCE_S = 1.5
"""Seconds that one has to prove it."""


class KeptConnections(HTTPConnectionPool):
    """Twisted's pool, of one server's connections. One that was idle for a while answers a question first: what it
    leads to may be gone without a word (another network, a suspended machine, a router that forgot it), and a request
    that is lost with it may not be sent again.
    """

    _connections: dict[Hashable, list[HTTP11ClientProtocol]]
    _timeouts: dict[HTTP11ClientProtocol, Any]

    def __init__(self, reactor: IReactorTime, host: str) -> None:
        super().__init__(reactor, persistent=True)
        self.maxPersistentPerHost = AT_MOST
        self.cachedConnectionTimeout = KEPT_S  # type: ignore[assignment]
        self._clock = reactor
        self._question = Headers({"Host": [host]})

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[HTTP11ClientProtocol]:
        """Return a connection for one request (Twisted's name for this method)."""
        return Deferred.fromCoroutine(self._get(key, endpoint))

    async def prove(self, *, now: bool = False) -> bool:
        """Return whether a kept connection is alive, or *now* is; those that are not are closed."""
        trusted_s = 0.0 if now else TRUSTED_S
        while idle := self._idle():
            newest = idle[-1]
            quiet = newest.state == "QUIESCENT"
            if quiet and self._idle_s(newest) < trusted_s:
                return True
            self._take_out(newest)
            if quiet and not await self._answers(newest):
                self.drop(PATIENCE_S)
            elif newest in self._timeouts:
                return True
        return False

    @property
    def some(self) -> bool:
        """Whether any is kept."""
        return bool(self._idle())

    def drop(self, idle_s: float) -> None:
        """Close what was idle for *idle_s*: another one didn't answer for so long, and they went the same way."""
        for connection in [each for each in self._idle() if self._idle_s(each) >= idle_s]:
            self._take_out(connection)
            transport: Any = connection.transport
            transport.abortConnection()

    async def _get(self, key: Hashable, endpoint: IStreamClientEndpoint) -> HTTP11ClientProtocol:
        if await self.prove():
            idle = self._idle()
            idle.insert(0, idle.pop())  # Twisted takes the first, which was idle for longest
        return await super().getConnection(key, endpoint)

    async def _answers(self, connection: HTTP11ClientProtocol) -> bool:
        """Ask something small; a connection that answered is kept again by then."""
        asked = connection.request(Request(b"HEAD", b"/health", self._question, None, persistent=True))
        watch = Watch(self._clock, PATIENCE_S, asked.cancel)
        try:
            await asked
        except Exception as error:
            if _cancelled(error) and not watch.expired:
                raise CancelledError from error  # whoever wanted it is gone
            return False
        finally:
            watch.stop()
        return True

    def _idle(self) -> list[HTTP11ClientProtocol]:
        return next(iter(self._connections.values()), [])

    def _take_out(self, connection: HTTP11ClientProtocol) -> None:
        self._idle().remove(connection)
        self._timeouts.pop(connection).cancel()

    def _idle_s(self, connection: HTTP11ClientProtocol) -> float:
        return float(self._clock.seconds() - self._timeouts[connection].getTime() + self.cachedConnectionTimeout)


def _cancelled(error: Exception) -> bool:
    reasons = error.reasons if isinstance(error, ResponseFailed) else ()
    return any(reason.check(CancelledError) for reason in reasons)
