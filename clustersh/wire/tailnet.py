"""What travels about Tailscale: who somebody is in the tailnet, and which machines it has."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec


class TailnetIdentity(msgspec.Struct, frozen=True):
    """Who an address is, as Tailscale says: the user's *login* (``tagged-devices`` for none) and the *node*'s name."""

    login: str
    node: str


class Tailscale(msgspec.Struct, frozen=True):
    """A machine in the tailnet: *path* is direct, relayed, or "" while nothing travels."""

    name: str
    online: bool
    path: str = ""


class TailnetState(enum.StrEnum):
    """What Tailscale is on a host."""

    RUNNING = "running"
    STOPPED = "stopped"
    LOGGED_OUT = "logged-out"
    UNAPPROVED = "unapproved"
    STARTING = "starting"
    NO_SERVICE = "no-service"
    MISSING = "missing"
    FAILED = "failed"


class TailnetNode(msgspec.Struct, frozen=True):
    """One node. *own*: it is the host that was asked. *path* is direct, relayed, or "" while nothing travels."""

    name: str
    dns_name: str
    addresses: tuple[str, ...]
    os: str
    online: bool
    last_seen: str | None = None
    path: str = ""
    own: bool = False


class TailnetView(msgspec.Struct, frozen=True):
    """GET /v1/tailnet: *host* is the coordinator's, *problem* says why Tailscale can't be asked there.

    *line* and *powershell* make a machine join; *policy* is `[enrollment] policy`.
    """

    host: str
    state: TailnetState
    problem: str
    nodes: tuple[TailnetNode, ...]
    line: str
    powershell: str
    policy: str


class TailnetQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """*address* is where the caller reaches the coordinator: machines outside of its tailnet do so too."""

    address: Annotated[str, msgspec.Meta(max_length=300)] = ""
