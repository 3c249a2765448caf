"""One HTTP connection, with limits on its headers and on the time that requests take to come in.

Its requests are served one after the other, each when its turn comes (`Turns`); until then it isn't read from, but for
a few KiB.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Error as TlsError
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from ..trust.errors import CertificateError
from ..trust.identity import Identity, Role
from ..wire.link import PATH
from .addresses import IpAddress, plain_address
from .callers import read_certificate
from .limits import source_of
from .turns import LINKS

if TYPE_CHECKING:
    from .http import Request, Site

REQUEST_S = 60
"""Seconds in which a whole request must be in, the TLS handshake included; an upload may only not pause that long."""
KEPT_S = 300
"""Seconds that a connection is kept for another request."""
LINGER_S = 3
"""Seconds in which the sender of a refused body may read the refusal before the connection is cut."""
MAX_HEADERS = 100
_LINK = PATH.encode()
MAX_HEADER_BYTES = 16 << 10


class Channel(HTTPChannel):
    """One connection."""

    transport: Any
    site: Site
    requests: list[Request]

    maxHeaders = MAX_HEADERS
    totalHeadersSize = MAX_HEADER_BYTES
    abortTimeout = LINGER_S

    _receiving = False
    _answering = False
    _refused = False
    _heard = False

    @cached_property
    def certified(self) -> tuple[Identity, str] | None:
        """Whom the peer's certificate names; read once, it can't change within TLS 1.3. Raises CertificateError."""
        found = read_certificate(self.transport)
        if found is not None:
            self.site.connections[self] = found[1]
        return found

    @cached_property
    def peer(self) -> IpAddress:
        """The other end's address."""
        return plain_address(self.getPeer().host)

    @cached_property
    def _source(self) -> str:
        """Whose turn it is: a key's, a stranger's address, or that of all agents' links."""
        with contextlib.suppress(CertificateError):
            if self.certified is not None:
                identity, key = self.certified
                return LINKS if identity.role is Role.AGENT and self._path == _LINK else key
        return source_of(self.peer)

    def refuse(self) -> None:
        """Take no more from this connection; it ends once the peer has had time to read the answer."""
        self._refused = True
        self.persistent = 0

    def resetTimeout(self) -> None:
        """Put the time-out off by a request's first byte, and by every byte of an upload; other bytes gain no time."""
        uploading = bool(self.requests) and self.requests[-1].stream is not None
        if not self._answering and (uploading or not self._receiving):
            self._receiving = True
            self.setTimeout(REQUEST_S)

    def dataReceived(self, data: bytes) -> None:
        self._heard = True
        if not self._refused:
            super().dataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a header without an end; Twisted's own way would leave a TLS connection open until its time-out."""
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.refuse()
        self.setTimeout(LINGER_S)
        self.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        self.requests[-1].begin(self._command, self._path, self._version)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._receiving, self._answering = False, True
        self.setTimeout(None)
        # As while a request is served: what comes meanwhile is set aside, and soon not read any more.
        self._handlingRequest = True
        self.setRawMode()
        self.site.turns.take(self._source, self)

    def serve(self) -> None:
        """Serve the request that is in: its turn has come."""
        self.timeOut = KEPT_S  # set aside by the call below, and set again when the answer is out
        try:
            super().allContentReceived()
        except Exception:
            self.transport.abortConnection()
            raise

    def requestDone(self, request: Any) -> None:
        self._answering = False
        if self._refused:
            self.requests.remove(request)
            self.setTimeout(LINGER_S)
        else:
            super().requestDone(request)

    def timeoutConnection(self) -> None:
        if not self._refused:
            super().timeoutConnection()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Whatever still holds this channel, there is nothing left to cut: TLS is taken down.
        self.site.connections.pop(self, None)
        self.site.turns.leave(self)
        if isinstance(reason.value, TlsError) and not self._heard:
            why = _tls_problem(reason.value)
            self.site.calls.refusals.note(str(self.peer), f"TLS handshake: {why}")
        super().connectionLost(reason)


def _tls_problem(error: TlsError) -> str:
    """Return OpenSSL's own words, such as ``certificate verify failed``."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(queue[0][-1]) if queue else "broken off"
