"""The agent's end of a link: a WebSocket over mutual TLS, as a thin adapter around `Jobs`, `Reads` and `Reporter`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..outbox import Message, Outbox
from ..websockets import WebSocketClientFactory, WebSocketClientProtocol
from ..wire.codec import WireError
from ..wire.link import (
    ALPN,
    MAX_MESSAGE,
    PATH,
    PULSE_S,
    SUBPROTOCOL,
    Adopt,
    AskHosts,
    AskVitals,
    Failed,
    FromAgent,
    Hello,
    Pulse,
    Read,
    StopRead,
    Vitals,
    Welcome,
    Witnesses,
    decode_from_coordinator,
    encode,
)
from ..wire.problems import Kind
from .jobs import Jobs
from .reached import Reached
from .reads import Reads
from .store import JobStore
from .vitals import Reporter
from .witnesses import WitnessReader

PING_S, PONG_S = 10.0, 15.0
HANDSHAKE_S = 30.0
WELCOME_S = 30.0
NORMAL = 1000
UNREADABLE = 4002
"""The codes below 3000 are the WebSocket implementation's own."""


class Gauges(Protocol):
    """What tells how the machine does."""

    async def measure(self) -> Vitals | None: ...


Answer: TypeAlias = Callable[[Adopt | AskHosts], Coroutine[Any, Any, FromAgent]]


async def adopt_nothing(asked: Adopt | AskHosts) -> FromAgent:
    """Answer for a machine that is carried itself."""
    return Failed(asked.request, Kind.BAD_REQUEST.value, "a machine that is carried can't carry others")


class LinkClosed(Exception):
    """The link ended. *code* is the WebSocket's, *reason* what was said; *welcomed* whether it had worked."""

    def __init__(self, code: int | None, reason: str, *, welcomed: bool, error: BaseException | None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.welcomed = welcomed
        self.error = error


@implementer(IPushProducer)
class Room:
    """Knows whether the transport takes more now; control messages don't ask."""

    def __init__(self) -> None:
        self._paused = False
        self._waiting: list[Deferred[None]] = []

    async def wait(self) -> None:
        """Return once the transport takes more."""
        while self._paused:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    def stopProducing(self) -> None:
        """The link's end is told elsewhere."""


class LinkProtocol(WebSocketClientProtocol):
    """One link. *closed* fires with its LinkClosed when it has ended, however that was."""

    _logger = Logger()

    def __init__(self) -> None:
        super().__init__()
        self.closed: Deferred[LinkClosed] = Deferred()
        self._welcomed = False
        self._own_reason = ""
        self._lost: BaseException | None = None
        self._outbox: Outbox | None = None
        self._room = Room()
        self._reads: Reads | None = None
        self._vitals: Reporter | None = None
        self._welcome_limit: Any = None
        self._pulse = LoopingCall(self._send_pulse)

    def onOpen(self) -> None:
        context: LinkFactory = self.factory
        self._pulse.clock = context.timer
        self._outbox = Outbox(context.timer, self._transmit)
        transport: Any = self.transport
        # Autobahn's own option comes too early to work in a client: a result would wait 40 ms behind its start.
        transport.setTcpNoDelay(True)
        transport.unregisterProducer()
        transport.registerProducer(self._room, True)
        self._reads = Reads(context.timer, context.store, self.tell, self._room.wait)
        self._vitals = Reporter(context.timer, context.gauges.measure, self.tell)
        self._welcome_limit = context.timer.callLater(WELCOME_S, self.hang_up, "no welcome came")
        self.tell(context.hello())
        context.reached.watch(self._send_pulse)
        context.jobs.link_up(self.tell)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        try:
            if not isBinary:
                raise WireError("frames are binary")
            message = decode_from_coordinator(payload)
        except WireError as error:
            self._logger.error("the coordinator sent what can't be read: {reason}", reason=str(error))
            self.hang_up("the coordinator sent what can't be read", UNREADABLE)
            return
        assert self._reads is not None and self._vitals is not None
        if isinstance(message, Read):
            self._reads.read(message)
        elif isinstance(message, StopRead):
            self._reads.stop(message.request)
        elif isinstance(message, AskVitals):
            self._vitals.asked(message)
        elif isinstance(message, Adopt | AskHosts):
            Deferred.fromCoroutine(self.factory.adopt(message)).addCallbacks(self.tell, self._failed)
        elif isinstance(message, Witnesses):
            Deferred.fromCoroutine(self.factory.witnesses.answer(message)).addCallbacks(self.tell, self._failed)
        else:
            if isinstance(message, Welcome):
                self._take_up(message)
            self.factory.jobs.received(message)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._welcome_limit is not None and self._welcome_limit.active():
            self._welcome_limit.cancel()
        if self._pulse.running:
            self._pulse.stop()
        self.factory.reached.leave(self._send_pulse)
        if self._outbox is not None:
            self._outbox.close()
        self.factory.jobs.link_down(self.tell)
        if self._reads is not None:
            self._reads.stop_all()
        if self._vitals is not None:
            self._vitals.stop()
        if not self.closed.called:
            self.closed.callback(
                LinkClosed(code, self._own_reason or reason or "", welcomed=self._welcomed, error=self._lost)
            )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason.value
        super().connectionLost(reason)

    def tell(self, message: FromAgent) -> None:
        """Send *message*, now or in a moment (see Outbox); on a link that is closing it is dropped."""
        if self._outbox is not None and self.state == self.STATE_OPEN:
            self._outbox.put(message)

    def _transmit(self, message: Message) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode(message), isBinary=True)

    def _failed(self, failure: Failure) -> None:
        self._logger.failure("a question can't be answered", failure)

    def hang_up(self, reason: str, code: int = NORMAL) -> None:
        """Close the link, which then ended for *reason*."""
        self._own_reason = reason
        if self._outbox is not None:
            self._outbox.flush()
        self.sendClose(code, reason)

    def _take_up(self, message: Welcome) -> None:
        self._welcomed = True
        if self._welcome_limit.active():
            self._welcome_limit.cancel()
        if not self._pulse.running:
            self._pulse.start(PULSE_S, now=False)
        if self._vitals is not None:
            self._vitals.start()
        self.factory.on_welcome(message)

    def _send_pulse(self) -> None:
        self.tell(Pulse(self.factory.clock(), self.factory.reached.problem))


@implementer(IProtocolNegotiationFactory)
class LinkFactory(WebSocketClientFactory):
    """Makes the adapters, for the coordinator at *netloc*. *hello* makes the first message of each link.

    *adopt* answers what only an agent's own machine is asked. *reached* is told of with each pulse, and as it changes.
    """

    protocol = LinkProtocol

    def __init__(
        self,
        reactor: Any,
        netloc: str,
        *,
        jobs: Jobs,
        store: JobStore,
        witnesses: WitnessReader,
        gauges: Gauges,
        hello: Callable[[], Hello],
        clock: Callable[[], float],
        on_welcome: Callable[[Welcome], None],
        adopt: Answer = adopt_nothing,
        reached: Reached | None = None,
    ) -> None:
        super().__init__(f"wss://{netloc}{PATH}", protocols=[SUBPROTOCOL], reactor=reactor)
        self.noisy = False
        self.timer = reactor
        self.jobs = jobs
        self.store = store
        self.witnesses = witnesses
        self.gauges = gauges
        self.hello = hello
        self.clock = clock
        self.on_welcome = on_welcome
        self.adopt = adopt
        self.reached = reached or Reached()
        self.setProtocolOptions(
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            autoPingInterval=PING_S,
            autoPingTimeout=PONG_S,
            openHandshakeTimeout=HANDSHAKE_S,
            failByDrop=False,
            maskClientFrames=False,  # masks are for proxies that look into plain HTTP; TLS keeps those out
        )

    def acceptableProtocols(self) -> list[bytes]:
        """Say at the TLS handshake already that this is to be a link (Twisted's name for this method)."""
        return list(ALPN)
