"""A TCP proxy that adds a delay each way, without a limit on the rate. Prints the address it listens on.

Usage: python -m benchmarks.delay_proxy HOST:PORT MILLISECONDS
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from clustersh.address import parse_address

reactor: Any = installed
IN_FLIGHT = 16 << 20
"""Bytes under way each way beyond which the sender is paused, as a network's own windows would."""


class Way(Protocol):
    """One end of a connection; what comes here leaves at *other*, later."""

    other: Way | None = None

    def __init__(self) -> None:
        self._flying = 0
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._flying += len(data)
        if self._flying > IN_FLIGHT:
            self.transport.pauseProducing()  # type: ignore[union-attr]
        reactor.callLater(delay_s, self._deliver, data)

    def join(self, other: Way) -> None:
        self.other = other
        for data in self._early:
            other.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        reactor.callLater(delay_s, self._hang_up)

    def _deliver(self, data: bytes) -> None:
        if self._flying > IN_FLIGHT >= self._flying - len(data):
            self.transport.resumeProducing()  # type: ignore[union-attr]
        self._flying -= len(data)
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)  # type: ignore[union-attr]

    def _hang_up(self) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()  # type: ignore[union-attr]


class Near(Way):
    """The end that somebody connected to."""

    def connectionMade(self) -> None:
        super().connectionMade()
        far = connectProtocol(TCP4ClientEndpoint(reactor, target.host, target.port), Way())
        far.addCallbacks(self._connected, lambda _: self.transport.loseConnection())  # type: ignore[union-attr]

    def _connected(self, far: Way) -> None:
        far.join(self)
        self.join(far)


target, delay_s = parse_address(sys.argv[1]), float(sys.argv[2]) / 1000
port = reactor.listenTCP(0, Factory.forProtocol(Near), interface="127.0.0.1")
sys.stdout.write(f"127.0.0.1:{port.getHost().port}\n")
sys.stdout.flush()
reactor.run()
