"""Autobahn's WebSockets for Twisted, without its native helpers and without its tracing.

The helpers speed up what we don't do (texts, and the masks that TLS makes pointless), for 1.5 MiB and 24 ms a program.
The tracing colours words for debug messages that nobody asked for: a seventh of what a message costs.
"""

from __future__ import annotations

import os
from typing import Any

_SWITCH = "AUTOBAHN_USE_NVX"
_given = os.environ.get(_SWITCH)
os.environ[_SWITCH] = "0"
try:
    from autobahn.twisted import websocket
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketServerFactory
    from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
finally:
    # The commands that an agent runs inherit its environment.
    if _given is None:
        del os.environ[_SWITCH]
    else:
        os.environ[_SWITCH] = _given


class _Untraced:
    """Takes and sends bytes as Autobahn does, where nothing is to be chopped up."""

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


__all__ = [
    "ConnectionDeny",
    "ConnectionRequest",
    "WebSocketClientFactory",
    "WebSocketClientProtocol",
    "WebSocketServerFactory",
    "WebSocketServerProtocol",
]
