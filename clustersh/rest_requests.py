"""Sending requests to a coordinator over kept connections, and again where one turned out to lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from .address import Address
from .http_bodies import BodyWriter, Watch, WholeBody
from .kept_connections import KeptConnections
from .trust.identity import SERVER_NAME

if TYPE_CHECKING:
    from treq.client import HTTPClient

Query: TypeAlias = Sequence[tuple[str, str]]
CONNECT_S = 10.0
LOST_S = 4.0
"""Seconds after which what may be asked twice is asked anew, where a kept connection brought no answer."""
_REPEATABLE = ("GET", "HEAD")
_KEY = "Idempotency-Key"
"""What has it may be asked twice, too."""


@implementer(IAgentEndpointFactory)
class _Dial:
    """Connects to *address*, whatever the URL says: that holds the coordinator's one internal name.

    So any address does that a socket takes; IPv6 ones and names with an underscore don't survive URL libraries.
    """

    def __init__(self, reactor: IReactorTime, address: Address, policy: IPolicyForHTTPS | None) -> None:
        self._reactor = reactor
        self._address = address
        self._policy = policy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return where to connect to (Twisted's name for this method)."""
        plain = HostnameEndpoint(self._reactor, self._address.host, self._address.port, timeout=CONNECT_S)
        if self._policy is None:
            return plain
        creator = self._policy.creatorForNetloc(uri.host, uri.port)
        return wrapClientTLS(creator, plain)


class Requests:
    """The way to one coordinator. *kept* are its connections, which age by *clock*."""

    def __init__(
        self, reactor: IReactorTime, address: Address, policy: IPolicyForHTTPS | None, clock: IReactorTime
    ) -> None:
        self.secure = policy is not None
        self.kept = KeptConnections(clock, SERVER_NAME)
        self._reactor = reactor
        self._clock = clock
        self._agent = Agent.usingEndpointFactory(reactor, _Dial(reactor, address, policy), pool=self.kept)

    @cached_property
    def _http(self) -> HTTPClient:
        # Imported at the first request: an agent whose jobs bring no files makes none, and it is 2 MiB.
        from treq.client import HTTPClient

        return HTTPClient(self._agent)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | BodyWriter | None,
        query: Query,
        headers: Mapping[str, str],
        wait_s: float = 0.0,
        lost: Callable[[], None] = lambda: None,
    ) -> IResponse:
        """Return the answer, whose body is still to be read; it is expected after *wait_s* seconds.

        What may not be asked twice goes over a connection that has just proven to be alive. *lost* is called before
        anything is asked again.
        """
        send = partial(self._send, method, path, body, query, headers)
        if method not in _REPEATABLE and _KEY not in headers:
            await self.kept.prove(now=True)
            return await send()
        if self.kept.some:
            asking = Deferred.fromCoroutine(send())
            watch = Watch(self._clock, wait_s + LOST_S, asking.cancel)
            try:
                return await asking
            except Exception:
                if not watch.expired:
                    raise
            finally:
                watch.stop()
            lost()
            self.kept.drop(LOST_S)
        return await send()

    async def _send(
        self, method: str, path: str, body: bytes | BodyWriter | None, query: Query, headers: Mapping[str, str]
    ) -> IResponse:
        url = f"{'https' if self.secure else 'http'}://{SERVER_NAME}{path}" + (f"?{urlencode(query)}" if query else "")
        given = Headers({name: [value] for name, value in headers.items()})
        response: IResponse = await self._http.request(
            method,
            url,
            headers=given,
            data=WholeBody(body) if isinstance(body, bytes) else body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,  # type: ignore[arg-type]
        )
        return response
