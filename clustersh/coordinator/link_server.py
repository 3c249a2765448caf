"""The WebSocket side of a link: a thin Autobahn adapter around `fleet.Link`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..outbox import Message, Outbox
from ..websockets import (
    ConnectionDeny,
    ConnectionRequest,
    WebSocketServerFactory,
    WebSocketServerProtocol,
    resource_of,
    with_options,
)
from ..wire.codec import WireError
from ..wire.link import MAX_MESSAGE, REPLACED, SUBPROTOCOL, Hello, decode_from_agent, encode
from ..wire.problems import ProblemError
from .addresses import plain_address
from .fleet import Fleet
from .links import Link
from .registry import Key
from .signals import Signal, wait_until

HELLO_S = 10.0
PING_S, PONG_S = 10.0, 15.0
BAD_MESSAGE = 4001
"""Close codes of our own: WebSocket endpoints may send 1000 and 3000 to 4999 only."""
GOING_AWAY = 4000
SMOOTHING = 0.25
"""What the newest ping counts for in a link's round trip."""
PING_BYTES = 12
MAX_UNDER_WAY = 64
"""Messages of a link that may wait to be dealt with before no more are read."""


class LinkProtocol(WebSocketServerProtocol):
    """One agent's WebSocket. Frames are binary messages of `wire.link`; the first is a Hello."""

    _logger = Logger()
    machine: Key
    _link: Link | None = None
    _outbox: Outbox
    _hello_limit: Any = None
    _under_way = 0
    _pinged: tuple[bytes, float] | None = None

    def onConnect(self, request: ConnectionRequest) -> str:
        if SUBPROTOCOL not in request.protocols:
            raise ConnectionDeny(400, f"speak {SUBPROTOCOL}")
        transport: Any = self.transport
        self._outbox = Outbox(self.factory.timer, self._transmit)
        self._link = Link(self.machine, str(plain_address(transport.getPeer().host)), self._outbox.put, self._hang_up)
        return SUBPROTOCOL

    def onOpen(self) -> None:
        self._socket.unregisterProducer()  # which is what served the upgrade: with its request it takes 5 KiB
        self.factory.links.add(self)
        self._hello_limit = self.factory.timer.callLater(HELLO_S, self._hang_up, "no hello came")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        assert self._link is not None
        if self.state != self.STATE_OPEN:
            return  # it was told why; what still comes is of no use
        try:
            if not isBinary:
                raise WireError("frames are binary")
            message = decode_from_agent(payload)
            if self._link.hello is None:
                self._first(message)
            else:
                self._await(self.factory.fleet.received(self._link, message))
        except (WireError, ProblemError) as error:
            self.factory.complain(self._link.machine.name, "sends a message that can't be")
            self.sendClose(BAD_MESSAGE, f"that message can't be: {error}")

    def sendPing(self, payload: bytes | None = None) -> None:
        """Send a ping, Autobahn's own included, and note when."""
        if payload:
            self._pinged = payload, self.factory.timer.seconds()
        super().sendPing(payload)

    def onPong(self, payload: bytes) -> None:
        if self._pinged is None or self._pinged[0] != payload or self._link is None:
            return  # it answers nothing that was asked
        took, self._pinged = self.factory.timer.seconds() - self._pinged[1], None
        before = self._link.round_trip_s
        self._link.round_trip_s = took if before is None else before + SMOOTHING * (took - before)

    @property
    def _socket(self) -> Any:
        return self.transport

    def _await(self, work: Deferred[None] | None) -> None:
        """Read no more while much of what came is still being dealt with."""
        if work is None:
            return
        self._under_way += 1
        if self._under_way == MAX_UNDER_WAY:
            self._socket.pauseProducing()
        work.addBoth(self._dealt_with)

    def _dealt_with(self, _: object) -> None:
        if self._under_way == MAX_UNDER_WAY and self.state == self.STATE_OPEN:
            self._socket.resumeProducing()
        self._under_way -= 1

    def _first(self, message: object) -> None:
        if not isinstance(message, Hello):
            raise WireError("a link begins with a hello")
        self._stop_waiting_for_hello()
        assert self._link is not None
        self.sendPing(secrets.token_bytes(PING_BYTES))  # the next is Autobahn's, in PING_S
        Deferred.fromCoroutine(self.factory.fleet.hello(self._link, message)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._logger.error("a link could not be taken up: {reason}", reason=failure.getErrorMessage())
        self._hang_up("try again")

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self._stop_waiting_for_hello()
        self.factory.discard(self)
        if self._link is not None:
            self._outbox.close()
        if self._link is not None and self._link.hello is not None:
            self.factory.fleet.closed(self._link)

    def _stop_waiting_for_hello(self) -> None:
        if self._hello_limit is not None and self._hello_limit.active():
            self._hello_limit.cancel()

    def cut(self, machine_id: str) -> None:
        """Drop the connection, if it is that machine's."""
        if self._link is not None and self._link.machine.id == machine_id:
            self.dropConnection(abort=True)

    def _transmit(self, message: Message) -> None:
        if self.state == self.STATE_OPEN:  # on a link that is closing, it is as if it never arrived
            self.sendMessage(encode(message), isBinary=True)

    def _hang_up(self, reason: str) -> None:
        if self._link is not None:
            self._outbox.flush()
        replaced = self._link is not None and self._link.replaced
        self.sendClose(REPLACED if replaced else GOING_AWAY, reason)


class _Taking(NamedTuple):
    """Makes one machine's adapter."""

    factory: LinkFactory
    machine: Key

    def buildProtocol(self, address: Any) -> LinkProtocol:
        protocol: Any = self.factory.buildProtocol(address)
        protocol.machine = self.machine
        return cast(LinkProtocol, protocol)


class LinkFactory(WebSocketServerFactory):
    """Makes the adapters.

    *complain* is told of a machine's name and what is wrong with what it sends; what exactly, the machine is told.
    """

    def __init__(
        self,
        reactor: Any,
        fleet: Fleet,
        complain: Callable[[str, str], None],
    ) -> None:
        super().__init__(protocols=[SUBPROTOCOL], reactor=reactor)
        self.timer = reactor
        self.fleet = fleet
        self.complain = complain
        self.links: set[LinkProtocol] = set()
        self._gone = Signal()
        self.setProtocolOptions(
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            autoPingInterval=PING_S,
            autoPingTimeout=PONG_S,
            openHandshakeTimeout=HELLO_S,
            failByDrop=False,
            requireMaskedClientFrames=False,  # the agents' are not, within TLS
            tcpNoDelay=True,
        )
        self.protocol = with_options(LinkProtocol, self)

    def taking(self, machine: Key) -> Any:
        """Return what takes over the connection of *machine*, whose certificate was checked."""
        return resource_of(_Taking(self, machine))

    def cut(self, machine_id: str) -> None:
        """Drop every connection of that machine now, whether it has said hello or not."""
        for link in list(self.links):
            link.cut(machine_id)

    def discard(self, link: LinkProtocol) -> None:
        """That connection is no more."""
        self.links.discard(link)
        self._gone.fire()

    async def until_closed(self, seconds: float) -> None:
        """Wait until every connection is closed, its last words delivered, but at most *seconds*."""
        await wait_until(self.timer, self._gone, lambda: not self.links, seconds)
