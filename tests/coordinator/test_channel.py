"""What is left of a connection that ended."""

from __future__ import annotations

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request
from clustersh.trust.identity import Role, fingerprint

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
