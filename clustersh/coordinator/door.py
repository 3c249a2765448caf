"""The one port. The first byte of a connection decides: 0x16 is TLS, anything else plain HTTP.

Connections are accepted at once, but only a few TLS handshakes begin in one turn of the reactor: each takes a
millisecond, and thousands of agents come back at the same time. Clients don't wait behind those: all agents' links
together count as one source, beside each address that anything else comes from (`Turns`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import psutil
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IOpenSSLContextFactory,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..config import Listen
from ..wire.link import ALPN
from .addresses import is_near, plain_address
from .crowd import Crowd
from .limits import source_of
from .turns import LINKS, Turns

FIRST_BYTE_S = 10.0
"""Seconds in which a connection must send its first byte."""
BACKLOG = 4096
"""Connections that may wait to be accepted, as far as the system allows it. What comes beyond them is dropped without a
word, and whoever it was, a client too, tries again only after 1, 3, 7, 15, 31 seconds."""
MAX_HELLO = 16 << 10
"""Bytes that a connection may send before its TLS handshake begins."""
_TLS_HANDSHAKE = 0x16
_LINK_OFFERED = bytes([len(ALPN[0])]) + ALPN[0]
"""What an agent's ClientHello has in it. Whoever lies about it only chooses in which row to wait."""
_EVERY_ADDRESS = "*"


class DoorError(Exception):
    """The coordinator can't listen there; the message says why and what to do."""


class PortTaken(DoorError):
    """Another program listens on the port."""


class DoorFactory(Factory):
    """Serves *site* over plain HTTP and, with *context_factory*, over TLS; `request.isSecure()` tells them apart."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        site: IProtocolFactory,
        context_factory: IOpenSSLContextFactory,
        crowd: Crowd | None = None,
    ) -> None:
        self.reactor = reactor
        self.crowd = crowd or Crowd()
        self.turns = Turns(reactor)
        self._plain = site
        self._tls = TLSMemoryBIOFactory(context_factory, False, site, reactor)
        self._tls.noisy = False

    def doStart(self) -> None:
        """Start with the first port."""
        if not self.numPorts:
            self._plain.doStart()
            self._tls.doStart()
        super().doStart()

    def doStop(self) -> None:
        """Stop with the last port."""
        super().doStop()
        if not self.numPorts:
            self._tls.doStop()
            self._plain.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return what waits for a connection's first byte."""
        return _FirstByte(self)

    def chosen(self, first: int) -> IProtocolFactory:
        """Return the factory for a connection that begins with the byte *first*."""
        return self._tls if first == _TLS_HANDSHAKE else self._plain


class _FirstByte(Protocol):
    """Waits for the first piece of a new connection, and for its turn; then hands it over and is gone."""

    transport: ITCPTransport

    def __init__(self, door: DoorFactory) -> None:
        self._door = door
        self._expiry: IDelayedCall | None = None
        self._received = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if not self._door.crowd.enter(transport, transport.getPeer().host):
            transport.abortConnection()
            return
        self._expiry = self._door.reactor.callLater(FIRST_BYTE_S, self._expire)

    def dataReceived(self, data: bytes) -> None:
        waits = bool(self._received)
        self._received += data
        if waits:
            if len(self._received) > MAX_HELLO:
                self.transport.abortConnection()
            return
        self._cancel_expiry()
        if data[0] == _TLS_HANDSHAKE:
            self._door.turns.take(self._source(), self)
        else:
            self.serve()

    def _source(self) -> str:
        if _LINK_OFFERED in self._received:
            return LINKS
        return source_of(plain_address(self.transport.getPeer().host))

    def serve(self) -> None:
        """Hand the connection over."""
        data, self._received = self._received, b""
        protocol = self._door.chosen(data[0]).buildProtocol(self.transport.getPeer())
        if protocol is None:
            self.transport.abortConnection()
            return
        # From here on the transport talks to that protocol alone, so nothing is paid for this one.
        self.transport.protocol = protocol  # type: ignore[attr-defined]
        protocol.makeConnection(self.transport)
        protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_expiry()
        self._door.turns.leave(self)

    def _expire(self) -> None:
        self._expiry = None
        self.transport.abortConnection()

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None


def listen(reactor: Any, where: Listen, factory: Factory) -> list[IListeningPort]:
    """Listen for *factory* and return the ports: one for each address of *where*; ``*`` is one port for them all.

    Blocks where a host name has to be looked up. Raises PortTaken, or DoorError for anything else.
    """
    ports: list[IListeningPort] = []
    number = where.port
    for family, host in _addresses(where):
        opened = _open_socket(family, host, number)
        try:
            ports.append(reactor.adoptStreamPort(opened.fileno(), opened.family, factory))
            number = opened.getsockname()[1]
        finally:
            opened.close()
    _warn_if_public(where)
    return ports


def _addresses(where: Listen) -> list[tuple[int, str]]:
    if where.host == _EVERY_ADDRESS:
        return [(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET, "")]
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise DoorError(f"can't listen on {where}: no such address ({error.strerror or error})") from error
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _open_socket(family: int, host: str, number: int) -> socket.socket:
    dual = family == socket.AF_INET6 and not host
    try:
        opened = socket.create_server((host, number), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        if dual and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return _open_socket(socket.AF_INET, "", number)
        raise _explain(error, host, number) from error
    opened.setblocking(False)
    return opened


def _explain(error: OSError, host: str, number: int) -> DoorError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {number} is taken by {_holder(number)}; choose another with --port, "
            "or [coordinator] listen in config.toml"
        )
    if error.errno == errno.EACCES:
        return DoorError(f"this user may not listen on port {number}; choose one above 1023 with --port")
    shown = f"{host or _EVERY_ADDRESS} port {number}"
    return DoorError(f"can't listen on {shown}: {error.strerror}; see [coordinator] listen in config.toml")


def _holder(number: int) -> str:
    """Name the program that listens on port *number*, as far as this user may see it."""
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return "another program"
    for connection in found:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == number:
            return _program(connection.pid)
    return "another program"


def _program(pid: int | None) -> str:
    if pid is None:
        return "another user's program"
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return f"process {pid}"
    return f"{name} (process {pid}{', this one' if pid == os.getpid() else ''})"


def _warn_if_public(where: Listen) -> None:
    public = sorted({host for host in _listened_hosts(where) if _is_public(host)})
    if public:
        Logger().warn(
            "listening on a public address ({addresses}): only near addresses may ask to join "
            "([enrollment] allow), but anyone can reach the port; narrow it with [coordinator] listen",
            addresses=", ".join(public),
        )


def _listened_hosts(where: Listen) -> Iterator[str]:
    if where.host not in (_EVERY_ADDRESS, "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        yield from (host for _, host in _addresses(where))
        return
    for addresses in psutil.net_if_addrs().values():
        yield from (entry.address for entry in addresses if entry.family in (socket.AF_INET, socket.AF_INET6))


def _is_public(host: str) -> bool:
    try:
        return not is_near(plain_address(host))
    except ValueError:
        return False
