"""Whose turn a connection's request is, and what is left of one that ended."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.channel import Channel
from clustersh.coordinator.http import Request
from clustersh.coordinator.turns import LINKS
from clustersh.trust.identity import Identity, Role, fingerprint
from clustersh.wire.link import PATH

from .conftest import Front


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_gone_is_not_cut_again(front: Front) -> None:
    async def nothing(request: Request, caller: Caller) -> None:
        return None

    front.api.add("GET", "/v1/nothing", nothing, frozenset({Role.FRONTEND}))
    wire = await front.raw(Role.FRONTEND)
    wire.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    await wire.until(b" 204 ")
    held = list(front.site.connections)  # as by whoever is about to answer it
    assert len(held) == 1
    wire.cut()
    while front.site.connections:
        await deferLater(reactor, 0.01)
    front.site.cut(fingerprint(front.credentials(Role.FRONTEND, "ann@box")[1]))


@pytest.mark.parametrize(
    ("role", "path", "source"),
    [
        (Role.AGENT, PATH, LINKS),
        (Role.AGENT, "/v1/blobs/sha256", "the key"),
        (Role.FRONTEND, PATH, "the key"),
        (Role.FRONTEND, "/v1/runs", "the key"),
    ],
)
def test_all_agents_that_come_for_a_link_are_one_source(role: Role, path: str, source: str) -> None:
    channel: Any = Channel()
    machine_id = "1f0c3b52-7d4e-4c1b-9a55-0d6a2f8e1b3c"
    channel.certified = (Identity(role, "ws1", machine_id), "the key")
    channel._path = path.encode()
    assert channel._source == source
