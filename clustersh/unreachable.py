"""Why no answer came from a coordinator: Twisted's many failures, told in one sentence for people."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, NoRouteError, TimeoutError
from twisted.python.failure import Failure

from .address import Address


class Cause(enum.StrEnum):
    """Which hop is broken."""

    REFUSED = "refused"
    NO_SUCH_HOST = "no-such-host"
    NO_ROUTE = "no-route"
    TIMED_OUT = "timed-out"
    IMPOSTOR = "impostor"
    NOT_ACCEPTED = "not-accepted"
    NO_COORDINATOR = "no-coordinator"
    LOST = "lost"


class Unreachable(Exception):
    """No answer came. The message is one sentence for people, *hint* what to do (or empty).

    *sent* is False only where surely nothing reached the coordinator: asking again is safe then.
    """

    def __init__(self, message: str, *, sent: bool, hint: str = "", cause: Cause = Cause.LOST) -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent
        self.hint = hint
        self.cause = cause


def explain(error: BaseException, address: Address, timed_out_s: float | None) -> BaseException:
    """Return what to raise for *error*, which a request to *address* ended with.

    *timed_out_s* is the time after which the request was given up, None if it wasn't. A cancellation and what a
    caller's own code raised come back as they are.
    """
    reasons = list(_reasons(error))
    # Imported only here: an agent that stays connected needs none of it, and it is 4 MiB.
    from twisted.web.client import RequestGenerationFailed, RequestTransmissionFailed, ResponseFailed

    connected = isinstance(error, ResponseFailed | RequestTransmissionFailed | RequestGenerationFailed)
    if timed_out_s is not None:
        return _timed_out(address, connected, timed_out_s)
    if any(isinstance(reason, CancelledError) for reason in reasons):
        return CancelledError()
    if isinstance(error, RequestGenerationFailed):
        return reasons[-1]
    for reason in reasons:
        if isinstance(reason, TlsError | VerificationError):
            return _tls(reason, address)
    if connected:
        return Unreachable(
            f"the connection to the coordinator at {address.netloc} was lost before its answer", sent=True
        )
    return _not_connected(error, address)


def not_a_coordinator(address: Address, found: str) -> Unreachable:
    """Return the error for an answer that no coordinator gives."""
    return Unreachable(
        f"{address.netloc} answers, but not as a coordinator does ({found})",
        sent=True,
        hint="check the host and the port",
        cause=Cause.NO_COORDINATOR,
    )


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """Give *error* and all that it wraps."""
    yield error
    for reason in getattr(error, "reasons", ()):
        if isinstance(reason, Failure) and reason.value is not None:
            yield from _reasons(reason.value)


def _timed_out(address: Address, connected: bool, seconds: float) -> Unreachable:
    what = "the coordinator at" if connected else "no connection to"
    rest = f"did not answer within {seconds:g}s" if connected else f"within {seconds:g}s"
    return Unreachable(f"{what} {address.netloc} {rest}", sent=connected, cause=Cause.TIMED_OUT)


def _not_connected(error: BaseException, address: Address) -> BaseException:
    known = next((row for row in _NOT_CONNECTED if isinstance(error, row.kind)), None)
    if known is None:
        return error
    words = known.words.format(host=address.host, netloc=address.netloc)
    hint = known.hint.format(host=address.host)
    return Unreachable(words, sent=False, hint=hint, cause=known.cause)


class _Known(NamedTuple):
    kind: type[Exception]
    cause: Cause
    words: str
    hint: str


# The first that fits counts: the last is the base class of the others.
_NOT_CONNECTED = (
    _Known(
        ConnectionRefusedError,
        Cause.REFUSED,
        "nothing listens at {netloc} (connection refused)",
        "is the coordinator running on {host}? Start it there with: clusterd",
    ),
    _Known(
        DNSLookupError, Cause.NO_SUCH_HOST, "there is no host called {host!r}", "check the name, or use its IP address"
    ),
    _Known(
        TimeoutError,
        Cause.TIMED_OUT,
        "no connection to {netloc}: it did not answer in time",
        "is {host} awake and on this network, and its firewall open?",
    ),
    _Known(NoRouteError, Cause.NO_ROUTE, "there is no route to {netloc}", "is this machine on the network of {host}?"),
    _Known(ConnectError, Cause.NO_ROUTE, "can't connect to {netloc}", "is this machine on the network of {host}?"),
)

# In TLS 1.3 these alerts end a handshake: the coordinator has read nothing of the request.
_CERTIFICATE_ALERTS = ("unknown ca", "bad certificate", "certificate", "decrypt error", "access denied")


def _tls(error: BaseException, address: Address) -> Unreachable:
    words = _openssl_words(error)
    if isinstance(error, VerificationError) or "certificate verify failed" in words:
        return Unreachable(
            f"{address.netloc} is not the coordinator that this program was paired with (its certificate is another's)",
            sent=False,
            hint="if a clock is wrong, set it; if the coordinator was set up anew, pair with it again; "
            "if neither, something stands in between",
            cause=Cause.IMPOSTOR,
        )
    if "alert" in words and any(alert in words for alert in _CERTIFICATE_ALERTS):
        return Unreachable(
            f"the coordinator at {address.netloc} does not accept this program's certificate",
            sent=False,
            hint="if a clock is wrong, here or there, set it; if the coordinator was set up anew, pair with it again",
            cause=Cause.NOT_ACCEPTED,
        )
    if "wrong version number" in words or "packet length too long" in words:
        return Unreachable(
            f"{address.netloc} answers, but not as a coordinator does (no TLS)",
            sent=False,
            hint="check the host and the port",
            cause=Cause.NO_COORDINATOR,
        )
    return Unreachable(f"the TLS connection to {address.netloc} failed: {words or 'it was cut off'}", sent=True)


def _openssl_words(error: BaseException) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries if isinstance(entry, tuple) and entry)
