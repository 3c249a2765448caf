"""The bodies of the REST calls that have an agent carry machines which only have SSH."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

Destination: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=320)]
"""Where the gateway's ssh goes to: a host of its user's configuration, HOST, or USER@HOST."""


class AdoptMachine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/adopt: have the machine *via* carry *destination*, as *name*.

    Without *via*: the one machine there is, or that on the coordinator's host; without *name*: as its host is called.
    *dry_run*: only see whether it is reached and its name is free.
    """

    destination: Destination
    name: str = ""
    via: str = ""
    dry_run: bool = False


class AdoptedMachine(msgspec.Struct, frozen=True):
    """What came of it: *machine* is *destination* for the ssh of *via*. *already*: it was before."""

    machine: str
    destination: str
    via: str
    already: bool = False
    dry_run: bool = False


class SshHosts(msgspec.Struct, frozen=True):
    """GET /v1/adopt/hosts: the hosts in the ssh configuration of *via*'s user."""

    via: str
    hosts: tuple[str, ...]


class AdoptFailed(msgspec.Struct, frozen=True):
    """A host that can't be adopted, why, and what to do about it: a line each."""

    destination: str
    problem: str
    hint: str | None = None


class AdoptedAll(msgspec.Struct, frozen=True):
    """What ``adopt --json`` prints."""

    adopted: tuple[AdoptedMachine, ...]
    failed: tuple[AdoptFailed, ...] = ()
