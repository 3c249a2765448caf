"""Many simulated agents in one process, each with a certificate and a link of its own; idle once they are welcome.

Usage: python -m benchmarks.many_agents ADDRESS FOLDER, which holds a folder with credentials for each agent. Prints a
line when all are welcome, and ends when its stdin does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from clustersh.address import Address, parse_address
from clustersh.clocks import boot_clock
from clustersh.trust.tls import load_client_policy
from clustersh.wire.link import PATH, PULSE_S, SUBPROTOCOL, Hello, Pulse, encode

reactor: Any = installed


class Agent(WebSocketClientProtocol):
    """One link: says hello and sends its pulse."""

    def __init__(self) -> None:
        super().__init__()
        self.welcome: Deferred[None] = Deferred()

    def onOpen(self) -> None:
        name = str(id(self))
        self.sendMessage(encode(Hello(version="0", instance=name, store=name, clock=boot_clock())), isBinary=True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if not self.welcome.called:
            self.welcome.callback(None)
            self.pulse()

    def pulse(self) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode(Pulse(boot_clock())), isBinary=True)
            reactor.callLater(PULSE_S, self.pulse)


class UntilEnd(Protocol):
    """Stops the program at the end of stdin."""

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


async def connect(address: Address, folder: Path) -> None:
    factory = WebSocketClientFactory(f"wss://{address.netloc}{PATH}", protocols=[SUBPROTOCOL], reactor=reactor)
    factory.protocol = Agent
    factory.noisy = False
    plain = HostnameEndpoint(reactor, address.host, address.port)
    link: Any = await wrapClientTLS(load_client_policy(folder).creator, plain).connect(factory)
    await link.welcome


async def connect_all(address: Address, folders: Path) -> None:
    for folder in sorted(folders.iterdir()):
        await connect(address, folder)
    sys.stdout.write("all are welcome\n")
    sys.stdout.flush()


def main() -> None:
    StandardIO(UntilEnd())
    work = ensureDeferred(connect_all(parse_address(sys.argv[1]), Path(sys.argv[2])))
    work.addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
    reactor.run()


main()
