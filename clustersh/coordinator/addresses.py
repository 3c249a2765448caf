"""Which addresses are near: they may ask to join, and a public one deserves a warning."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from ..config import Network

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
_CARRIER_GRADE = ("100.64.0.0/10",)
"""Shared address space (RFC 6598); also what overlay networks such as Tailscale use."""
NEAR: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in (*_LOOPBACK, *_PRIVATE, *_LINK_LOCAL, *_CARRIER_GRADE)
)


def plain_address(host: str) -> IpAddress:
    """Return the address *host*; one that IPv6 only carries (``::ffff:192.0.2.1``) as the IPv4 address it is.

    Raises ValueError for a name.
    """
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_within(address: IpAddress, networks: Iterable[Network]) -> bool:
    """Whether *address* is in one of *networks*."""
    return any(address in network for network in networks)


def is_near(address: IpAddress, allowed: Iterable[Network] = ()) -> bool:
    """Whether *address* is loopback, private, link-local or carrier-grade, or in one of the *allowed* networks."""
    return is_within(address, NEAR) or is_within(address, allowed)


def is_own_host(peer: IpAddress, local: IpAddress) -> bool:
    """Whether a connection that came from *peer* to *local* was made on this host."""
    return peer.is_loopback or peer == local
