"""The checks ``http`` and ``tcp``: made directly, whatever proxy the environment names."""

from __future__ import annotations

import socket
from time import monotonic
from typing import TYPE_CHECKING

from .failed import Failed, no_answer, of_os
from .grammar import Endpoint, Url, read_url

if TYPE_CHECKING:
    from http.client import HTTPConnection

MAX_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_NO_NAME = "no host can have that name"


def check_tcp(endpoint: Endpoint, timeout_s: float) -> str:
    """Connect to *endpoint*."""
    begun = monotonic()
    try:
        socket.create_connection(endpoint, timeout_s).close()
    except TimeoutError:
        raise no_answer(timeout_s) from None
    except OSError as error:
        raise of_os(error) from error
    except UnicodeError as error:
        raise Failed(_NO_NAME) from error
    return f"connected in {_ms_since(begun)}"


def check_http(url: Url, timeout_s: float) -> str:
    """Ask for *url* and follow where it leads; 2xx and 3xx pass. The body isn't read: it may have no end."""
    begun = monotonic()
    for hops in range(MAX_REDIRECTS + 1):
        status, location = _ask(url, timeout_s, begun + timeout_s)
        if location is None:
            said = f"{status} in {_ms_since(begun)}{_after(hops)}"
            if 200 <= status < 400:
                return said
            raise Failed(said)
        url = _follow(url, location)
    raise Failed(f"more than {MAX_REDIRECTS} redirects")


def _ask(url: Url, timeout_s: float, deadline: float) -> tuple[int, str | None]:
    """Return the status, and where it leads if it leads on."""
    import ssl
    from http.client import HTTPException, RemoteDisconnected

    try:
        connection = _connection(url, max(0.001, deadline - monotonic()))
        try:
            connection.request("GET", url.path, headers={"User-Agent": "clustersh", "Connection": "close"})
            answer = connection.getresponse()
            location = answer.getheader("Location") if answer.status in _REDIRECTS else None
            return answer.status, location
        finally:
            connection.close()
    except TimeoutError:
        raise no_answer(timeout_s) from None
    except RemoteDisconnected:
        raise Failed("the connection was closed without an answer") from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(f"its certificate is not accepted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Failed(f"TLS failed: {error.reason or error}") from error
    except OSError as error:
        raise of_os(error) from error
    except UnicodeError as error:
        raise Failed(_NO_NAME) from error
    except (HTTPException, ValueError) as error:
        raise Failed("what answers there does not speak HTTP") from error


def _connection(url: Url, timeout_s: float) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    if not url.secure:
        return HTTPConnection(url.host, url.port, timeout=timeout_s)
    from ssl import create_default_context

    return HTTPSConnection(url.host, url.port, timeout=timeout_s, context=create_default_context())


def _follow(url: Url, location: str) -> Url:
    from urllib.parse import urljoin

    host = f"[{url.host}]" if ":" in url.host else url.host
    try:
        return read_url(urljoin(f"http{'s' * url.secure}://{host}:{url.port}{url.path}", location))
    except ValueError as error:
        raise Failed("it redirects to what is no usable URL") from error


def _after(hops: int) -> str:
    return f" after {hops} redirect{'s' * (hops > 1)}" if hops else ""


def _ms_since(begun: float) -> str:
    return f"{round((monotonic() - begun) * 1000)} ms"
