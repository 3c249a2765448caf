"""What Tailscale's program says in JSON, read with patience: its fields come and go with its versions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from .wire.codec import WireError, decode_json
from .wire.tailnet import TailnetIdentity, TailnetState
from .wire.units import parse_timestamp

DIRECT, RELAYED = "direct", "relayed"
_MULLVAD = ("tag:mullvad-exit-node", ".mullvad.ts.net")
_NAME_LENGTH = 255


class Node(NamedTuple):
    """One node of the tailnet. *name* is the first part of *dns_name*, *last_seen* in seconds since 1970.

    *path* is direct, relayed, or "" while nothing travels. *own*: it is this host. *hidden*: Tailscale's own
    list leaves it out, for it is somebody else's: a user's with whom something is shared, or a VPN's exit.
    """

    name: str
    dns_name: str
    addresses: tuple[str, ...]
    online: bool
    path: str = ""
    os: str = ""
    last_seen: float | None = None
    own: bool = False
    hidden: bool = False


class _Peer(msgspec.Struct, frozen=True):
    """The part of a node that is of use. Whatever is empty may be null, or missing."""

    host_name: str | None = msgspec.field(default=None, name="HostName")
    dns_name: str | None = msgspec.field(default=None, name="DNSName")
    os: str | None = msgspec.field(default=None, name="OS")
    addresses: tuple[str, ...] | None = msgspec.field(default=None, name="TailscaleIPs")
    online: bool | None = msgspec.field(default=None, name="Online")
    active: bool | None = msgspec.field(default=None, name="Active")
    current_address: str | None = msgspec.field(default=None, name="CurAddr")
    relay: str | None = msgspec.field(default=None, name="Relay")
    peer_relay: str | None = msgspec.field(default=None, name="PeerRelay")
    last_seen: str | None = msgspec.field(default=None, name="LastSeen")
    sharee: bool | None = msgspec.field(default=None, name="ShareeNode")
    tags: tuple[str, ...] | None = msgspec.field(default=None, name="Tags")


class _Status(msgspec.Struct, frozen=True):
    backend: str | None = msgspec.field(default=None, name="BackendState")
    own: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Self")
    peers: dict[str, msgspec.Raw] | None = msgspec.field(default=None, name="Peer")


class _Named(msgspec.Struct, frozen=True):
    name: str | None = msgspec.field(default=None, name="Name")
    computed: str | None = msgspec.field(default=None, name="ComputedName")


class _User(msgspec.Struct, frozen=True):
    login: str | None = msgspec.field(default=None, name="LoginName")


class _Whois(msgspec.Struct, frozen=True):
    node: _Named | None = msgspec.field(default=None, name="Node")
    user: _User | None = msgspec.field(default=None, name="UserProfile")


_STATES = {
    "Running": TailnetState.RUNNING,
    "Stopped": TailnetState.STOPPED,
    "NeedsLogin": TailnetState.LOGGED_OUT,
    "NeedsMachineAuth": TailnetState.UNAPPROVED,
    "NoState": TailnetState.STARTING,
    "Starting": TailnetState.STARTING,
}


def parse_backend(content: bytes) -> TailnetState:
    """Return what the status says that Tailscale is. Raises WireError."""
    backend = decode_json(content, _Status).backend or ""
    if backend not in _STATES:
        raise WireError(f"it is in a state that is not known, {backend[:40]!r}")
    return _STATES[backend]


def parse_whois(content: bytes) -> TailnetIdentity | None:
    """Return whom ``tailscale whois --json`` tells of; None where it names nobody. Raises WireError."""
    found = decode_json(content, _Whois)
    login = ((found.user and found.user.login) or "")[:_NAME_LENGTH]
    node = ((found.node and (found.node.name or found.node.computed)) or "").rstrip(".")[:_NAME_LENGTH]
    return TailnetIdentity(login, node) if login and node else None


def parse_status(content: bytes) -> tuple[Node, ...]:
    """Return the nodes, this host's first. A node that can't be read is left out. Raises WireError."""
    status = decode_json(content, _Status)
    return tuple(_nodes(status))


def _nodes(status: _Status) -> Iterator[Node]:
    yield from _node(status.own, own=True)
    for raw in (status.peers or {}).values():
        yield from _node(raw, own=False)


def _node(raw: msgspec.Raw, *, own: bool) -> Iterator[Node]:
    try:
        peer = decode_json(bytes(raw), _Peer)
    except WireError:
        return
    dns_name = (peer.dns_name or "").rstrip(".")[:_NAME_LENGTH]
    tags = peer.tags or ()
    yield Node(
        name=dns_name.partition(".")[0] or (peer.host_name or "")[:_NAME_LENGTH],
        dns_name=dns_name,
        addresses=tuple(_addresses(peer.addresses or ())),
        online=bool(peer.online),
        path=_path(peer),
        os=(peer.os or "")[:_NAME_LENGTH],
        last_seen=_time(peer.last_seen or ""),
        own=own,
        hidden=bool(peer.sharee) or _MULLVAD[0] in tags or dns_name.endswith(_MULLVAD[1]),
    )


def _path(peer: _Peer) -> str:
    if not peer.active:
        return ""
    if peer.current_address:
        return DIRECT
    return RELAYED if peer.relay or peer.peer_relay else ""


def _addresses(texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        try:
            yield str(ipaddress.ip_address(text))
        except ValueError:
            continue


def _time(text: str) -> float | None:
    """Return the seconds since 1970; None for a time of Go's that was never set, which is in the year 1."""
    try:
        seconds = parse_timestamp(text)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None
