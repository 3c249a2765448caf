"""Autobahn's WebSockets for Twisted, without its native helpers, its tracing, and what it imports for other uses.

The helpers speed up what we don't do (texts, and the masks that TLS makes pointless), for 1.5 MiB and 24 ms a program.
The tracing colours words for debug messages that nobody asked for: a seventh of what a message costs. What it keeps and
tells of each connection (its options, the peer's certificate in words) is a fifth of what a link's beginning costs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_SWITCH = "AUTOBAHN_USE_NVX"
_OPTIONAL = ("_nvx_utf8validator", "_nvx_xormasker", "cbor2", "click")
"""The helpers, a serializer, and colours for each of its debug messages: 2 MiB of memory that it does without."""


@contextlib.contextmanager
def _sparing() -> Iterator[None]:
    """Have what is imported meanwhile take the optional modules for missing; nothing of that stays."""
    # The commands that an agent runs inherit its environment.
    given = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "0"
    there = {name: sys.modules.get(name) for name in _OPTIONAL}
    sys.modules.update(dict.fromkeys(_OPTIONAL))  # type: ignore[arg-type]  # None: importing it fails
    try:
        yield
    finally:
        for name, module in there.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        if given is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = given


with _sparing():
    from autobahn.twisted import websocket
    from autobahn.twisted.util import peer2str
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketServerFactory
    from autobahn.wamp.types import TransportDetails
    from autobahn.websocket.protocol import TrafficStats
    from autobahn.websocket.types import ConnectionDeny, ConnectionRequest

_UNTOLD = TransportDetails()
_TRAFFIC = TrafficStats()
"""Counted for all connections together: nobody asks for any one's."""


class _Untraced:
    """Takes and sends bytes as Autobahn does, where nothing is to be chopped up."""

    def connectionMade(self: Any) -> None:
        self._transport_details = _UNTOLD
        self.peer = peer2str(self.transport)
        self.transport.setTcpNoDelay(self.factory.tcpNoDelay)
        self._connectionMade()
        self.trafficStats = _TRAFFIC

    def _onOpen(self: Any) -> None:
        self.onOpen()

    def onMessageEnd(self: Any) -> None:
        if not self.failedByMe:
            self._onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = None

    def dataReceived(self: Any, data: bytes) -> None:
        self._dataReceived(data)

    def sendData(self: Any, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        if self.state != self.STATE_OPEN or sync or chopsize or self.send_queue:
            super().sendData(data, sync, chopsize)  # type: ignore[misc]
        else:
            self.transport.write(data)
            self.trafficStats.outgoingOctetsWireLevel += len(data)


class WebSocketClientProtocol(_Untraced, websocket.WebSocketClientProtocol):  # type: ignore[misc]
    """A client's end."""


class WebSocketServerProtocol(_Untraced, websocket.WebSocketServerProtocol):  # type: ignore[misc]
    """A server's end."""


def with_options(protocol: type[Any], factory: Any) -> type[Any]:
    """Return *protocol* with *factory*'s options as its own: else each connection would have a copy of them all."""
    options = {name: getattr(factory, name) for name in protocol.CONFIG_ATTRS}
    return type(protocol.__name__, (protocol,), {"CONFIG_ATTRS": [], **options})


def resource_of(factory: Any) -> Any:
    """Return what serves *factory*'s protocol at a path of a site."""
    from autobahn.twisted.resource import WebSocketResource  # which imports what is imported above

    return WebSocketResource(factory)


__all__ = [
    "ConnectionDeny",
    "ConnectionRequest",
    "WebSocketClientFactory",
    "WebSocketClientProtocol",
    "WebSocketServerFactory",
    "WebSocketServerProtocol",
    "resource_of",
    "with_options",
]
