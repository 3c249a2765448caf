"""Connections that are kept, over real sockets, and by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock

from clustersh.kept_connections import AT_MOST, KEPT_S, PATIENCE_S, TRUSTED_S
from clustersh.rest_client import RestClient, Unreachable
from clustersh.rest_requests import LOST_S
from clustersh.trust.tls import ClientPolicy, client_connection_creator
from clustersh.wire.rest import Health

from .fake_coordinator import Asked, FakeCoordinator, later, reactor

HEALTH = Health("clusterd", "0.1.0")


class Setting:
    """A coordinator, and a client of it whose kept connections age by *clock*.

    What comes on one of the ports *lost* is never answered, as if the way there were gone.
    """

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.lost = set[int]()
        self._held: list[Deferred[object]] = []
        self.coordinator = FakeCoordinator(folder, self._answer, proofs=True)
        own = self.coordinator.credentials()
        policy = ClientPolicy(client_connection_creator(own.ca, own.key, own.certificate))
        self.client = RestClient(reactor, self.coordinator.address, policy, clock=self.clock)

    def _answer(self, asked: Asked) -> object:
        if asked.peer_port in self.lost:
            if asked.method == "HEAD":
                reactor.callLater(0, self.clock.advance, PATIENCE_S)
            return Deferred()
        if asked.path == "/held":
            self._held.append(Deferred())
            return self._held[-1]
        return HEALTH

    @property
    def asked(self) -> list[tuple[str, int]]:
        """What came, and on which port."""
        return [(asked.method, asked.peer_port) for asked in self.coordinator.asked]

    async def call(self) -> int:
        """Send what may not be sent twice, and return the port that it came on."""
        await self.client.call("POST", "/v1/groups", answer=Health)
        return self.asked[-1][1]

    async def look(self) -> int:
        """Send what may be sent twice, and return the port that it came on."""
        await self.client.call("GET", "/v1/groups", answer=Health)
        return self.asked[-1][1]

    async def connections(self, number: int) -> list[int]:
        """Have so many kept, and return their ports, the one used last at the end."""
        calls = [Deferred.fromCoroutine(self.client.call("GET", "/held", answer=Health)) for _ in range(number)]
        while len(self._held) < number:
            await later(0.01)
        held, self._held = self._held, []
        for each in held:
            each.callback(HEALTH)
        await gatherResults(calls)
        return [port for _, port in self.asked[-number:]]

    async def stop(self) -> None:
        await self.client.close()
        await self.coordinator.stop()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.stop()))


@pytest_twisted.ensureDeferred
async def test_one_that_is_in_use_is_asked_nothing(setting: Setting) -> None:
    port = await setting.look()
    for _ in range(3):
        setting.clock.advance(TRUSTED_S - 0.1)
        assert await setting.look() == port
    assert setting.asked == [("GET", port)] * 4


@pytest_twisted.ensureDeferred
async def test_one_that_was_idle_proves_itself_before_it_is_used(setting: Setting) -> None:
    port = await setting.look()
    setting.clock.advance(TRUSTED_S)
    assert await setting.look() == port
    assert setting.asked == [("GET", port), ("HEAD", port), ("GET", port)]


@pytest_twisted.ensureDeferred
async def test_the_one_used_last_is_used_next_and_the_others_are_closed_in_time(setting: Setting) -> None:
    assert len(set(await setting.connections(3))) == 3
    port = await setting.look()
    for _ in range(40):
        setting.clock.advance(TRUSTED_S - 0.1)
        assert await setting.look() == port
    assert 40 * (TRUSTED_S - 0.1) > KEPT_S
    used = {port for _, port in setting.asked}
    assert len(used & set(await setting.connections(3))) == 1


@pytest_twisted.ensureDeferred
async def test_a_lost_one_takes_no_request_with_it(setting: Setting) -> None:
    port = await setting.call()
    setting.lost.add(port)
    setting.clock.advance(TRUSTED_S)
    other = await setting.call()
    assert other != port
    assert setting.asked == [("POST", port), ("HEAD", port), ("POST", other)]


@pytest_twisted.ensureDeferred
async def test_all_that_were_idle_with_a_lost_one_are_closed(setting: Setting) -> None:
    ports = await setting.connections(AT_MOST)
    setting.lost.update(ports)
    setting.clock.advance(TRUSTED_S)
    before = len(setting.asked)
    new = await setting.call()
    assert new in await setting.connections(AT_MOST)
    assert [what for what, _ in setting.asked[before:]] == ["HEAD", "POST", *["GET"] * AT_MOST], "one was waited for"


@pytest_twisted.ensureDeferred
async def test_one_is_kept_open_as_long_as_it_is_asked(setting: Setting) -> None:
    port = await setting.call()
    for _ in range(30):
        setting.clock.advance(20.0)
        await setting.client.keep_open()
    assert await setting.call() == port
    assert {each for _, each in setting.asked} == {port}
    setting.clock.advance(KEPT_S)
    assert await setting.call() != port


@pytest_twisted.ensureDeferred
async def test_keeping_open_replaces_a_lost_one(setting: Setting) -> None:
    port = await setting.call()
    setting.lost.add(port)
    setting.clock.advance(20.0)
    await setting.client.keep_open()
    (before, *_, asked) = setting.asked
    assert before == ("POST", port) and asked[0] == "HEAD" and asked[1] != port
    assert await setting.call() == asked[1]


@pytest_twisted.ensureDeferred
async def test_keeping_open_tells_where_there_is_nobody(setting: Setting) -> None:
    await setting.call()
    await setting.coordinator.stop()
    await setting.client.close()
    setting.clock.advance(20.0)
    with pytest.raises(Unreachable, match="connection refused"):
        await setting.client.keep_open()


@pytest_twisted.ensureDeferred
async def test_who_leaves_while_one_proves_itself_sends_nothing(setting: Setting) -> None:
    port = await setting.call()
    setting.coordinator.handler = lambda asked: Deferred()
    setting.clock.advance(TRUSTED_S)
    call = Deferred.fromCoroutine(setting.client.call("POST", "/v1/groups"))
    while len(setting.asked) < 2:
        await later(0.01)
    call.cancel()
    with pytest.raises(CancelledError):
        await call
    setting.coordinator.handler = lambda asked: HEALTH
    other = await setting.look()
    assert setting.asked == [("POST", port), ("HEAD", port), ("GET", other)]


@pytest.mark.parametrize("headers", [None, {"Idempotency-Key": "k"}], ids=["no key", "key"])
@pytest_twisted.ensureDeferred
async def test_what_went_into_a_lost_one_is_asked_again_where_that_may_be(
    setting: Setting, headers: dict[str, str] | None
) -> None:
    """The way was lost just after an answer came."""
    ports = await setting.connections(2)
    setting.lost.update(ports)
    method = "GET" if headers is None else "POST"
    waiting = Deferred.fromCoroutine(setting.client.call(method, "/x", answer=Health, headers=headers, wait_s=5))
    while len(setting.asked) < 3:
        await later(0.01)
    setting.clock.advance(5 + LOST_S - 0.1)
    await later()
    assert not waiting.called
    setting.clock.advance(0.1)
    assert await waiting == HEALTH
    assert setting.asked[2] == (method, ports[-1])
    assert setting.asked[3][0] == method and setting.asked[3][1] not in ports
    assert len(setting.asked) == 4


@pytest_twisted.ensureDeferred
async def test_what_may_not_be_asked_again_has_one_prove_itself_each_time(setting: Setting) -> None:
    """Even if it was in use a moment ago."""
    (port,) = await setting.connections(1)
    setting.lost.add(port)
    other = await setting.call()
    assert setting.asked[1:] == [("HEAD", port), ("POST", other)]


@pytest_twisted.ensureDeferred
async def test_what_was_asked_again_in_vain_may_have_been_sent(setting: Setting) -> None:
    """Nobody listens any more: but the first one may have come."""
    (port,) = await setting.connections(1)
    setting.lost.add(port)
    waiting = Deferred.fromCoroutine(setting.client.call("POST", "/x", answer=Health, headers={"Idempotency-Key": "k"}))
    while len(setting.asked) < 2:
        await later(0.01)
    await setting.coordinator.stop()
    setting.clock.advance(LOST_S)
    with pytest.raises(Unreachable, match="connection refused") as caught:
        await waiting
    assert caught.value.sent
