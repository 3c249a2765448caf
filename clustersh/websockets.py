"""Autobahn's WebSockets for Twisted, imported without its native helpers.

They speed up what we don't do (texts, and the masks that TLS makes pointless), for 1.5 MiB and 24 ms a program.
"""

from __future__ import annotations

import os

_SWITCH = "AUTOBAHN_USE_NVX"
_given = os.environ.get(_SWITCH)
os.environ[_SWITCH] = "0"
try:
    from autobahn.twisted.websocket import (
        WebSocketClientFactory,
        WebSocketClientProtocol,
        WebSocketServerFactory,
        WebSocketServerProtocol,
    )
    from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
finally:
    # The commands that an agent runs inherit its environment.
    if _given is None:
        del os.environ[_SWITCH]
    else:
        os.environ[_SWITCH] = _given

__all__ = [
    "ConnectionDeny",
    "ConnectionRequest",
    "WebSocketClientFactory",
    "WebSocketClientProtocol",
    "WebSocketServerFactory",
    "WebSocketServerProtocol",
]
