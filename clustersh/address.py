"""Where a coordinator is, as people type it."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

DEFAULT_PORT = 5672
_SCHEMES = ("http", "https")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AUTHORITY = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?")
_EXPECTED = "expected a coordinator such as 'joshua-ws1', 'joshua-ws1:5672' or 'http://joshua-ws1:5672'"


class Address(NamedTuple):
    """A coordinator's host (a name, or an IPv4 or IPv6 address without brackets) and port."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def netloc(self) -> str:
        """``host:port``, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def plain_url(self, path: str = "") -> str:
        """Return the URL of *path* (which begins with ``/``) over plain HTTP."""
        return f"http://{self.netloc}{path}"

    def tls_url(self, path: str = "") -> str:
        """Return the URL of *path* (which begins with ``/``) over TLS."""
        return f"https://{self.netloc}{path}"

    def __str__(self) -> str:
        return self.plain_url()


def parse_address(text: str) -> Address:
    """Return the coordinator that *text* names: a host, ``host:port`` or an http(s) URL. Raises ValueError.

    The scheme tells nothing (one port serves both) and a port that isn't given is 5672, not the scheme's.
    """
    given = text.strip()
    scheme, separator, rest = given.partition("://")
    if separator and scheme.lower() not in _SCHEMES:
        raise ValueError(f"{text!r}: a coordinator is reached over http or https, not {scheme!r}")
    authority, mark = (rest if separator else given), ""
    for mark in "/?#":
        authority, found, tail = authority.partition(mark)
        if (found and mark != "/") or tail.strip("/"):
            raise ValueError(f"{text!r}: only a host and a port, without a path or query")
    if "@" in authority:
        # Not repeated: it may hold a password.
        raise ValueError("an address has no user name or password in it: only a host and a port")
    if authority.count(":") > 1 and "[" not in authority:
        authority = f"[{authority}]"
    found_parts = _AUTHORITY.fullmatch(authority)
    if not found_parts:
        raise ValueError(f"{text!r} is no address: {_EXPECTED}")
    v6, name, port = found_parts.groups()
    return Address(_v6(text, v6) if v6 is not None else _name(text, name), _port(text, port))


def _v6(text: str, host: str) -> str:
    try:
        found = ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is no IPv6 address") from None
    if found.scope_id is not None and not _ZONE.fullmatch(found.scope_id):
        raise ValueError(f"{text!r}: {found.scope_id!r} is no network interface")
    return str(found)


def _name(text: str, host: str) -> str:
    if not host:
        raise ValueError(f"{text!r} names no host: {_EXPECTED}")
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is no host name: {_EXPECTED}")
    return host.lower()


def _port(text: str, port: str | None) -> int:
    number = DEFAULT_PORT if port is None else int(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"{text!r}: a port is between 1 and 65535")
    return number
