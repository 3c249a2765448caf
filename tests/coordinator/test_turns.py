"""Requests that wait for their turn: few at once, the sources one by one, none of a connection that is gone."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from clustersh.coordinator.api import Api
from clustersh.coordinator.callers import Gate
from clustersh.coordinator.channel import KEPT_S
from clustersh.coordinator.http import Request, Site
from clustersh.coordinator.refusals import Refusals
from clustersh.coordinator.turns import AT_ONCE, Turns
from clustersh.wire.rest import NameOf

from .conftest import TrustedList


class TurnByTurn(Clock):
    """A Clock that does in a turn what a reactor does in it: what is due at its begin, and not what comes of that."""

    def turn(self) -> None:
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        self.calls = [call for call in self.calls if call not in due]
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


class Asking:
    """A connection with *more* requests after its first one."""

    def __init__(self, turns: Turns, served: list[str], source: str, more: int = 0) -> None:
        self.turns, self.served, self.source, self.more = turns, served, source, more
        turns.take(source, self)

    def serve(self) -> None:
        self.served.append(self.source)
        if self.more:
            self.more -= 1
            self.turns.take(self.source, self)


def test_a_few_requests_are_served_at_once_and_the_rest_in_later_turns() -> None:
    clock, served = TurnByTurn(), []
    Asking(Turns(clock, 3), served, "flood", more=9)
    assert len(served) == 3
    for many in (6, 9, 10, 10):
        clock.turn()
        assert len(served) == many


def test_a_lone_request_waits_for_nothing_however_many_came_before() -> None:
    clock, served = TurnByTurn(), []
    turns = Turns(clock, 3)
    for _ in range(10):
        Asking(turns, served, "lone")
        clock.turn()
    assert len(served) == 10 and not clock.getDelayedCalls()


def test_each_source_waits_for_one_request_of_every_other_not_for_all_of_them() -> None:
    clock, served = TurnByTurn(), []
    turns = Turns(clock, 2)
    for _ in range(50):
        Asking(turns, served, "flood", more=50)
    Asking(turns, served, "other")
    Asking(turns, served, "third")
    clock.turn()
    clock.turn()
    assert served[2:] == ["flood", "other", "third", "flood"]


def test_a_connection_that_is_gone_is_not_served_and_costs_nobody_a_turn() -> None:
    clock, served = TurnByTurn(), []
    turns = Turns(clock, 2)
    waiting = [Asking(turns, served, "flood") for _ in range(1000)]
    Asking(turns, served, "other")
    for each in waiting:
        turns.leave(each)
    clock.turn()
    assert served == ["flood", "flood", "other"]
    turns.leave(waiting[0])
    clock.turn()
    Asking(turns, served, "flood")
    assert served[3:] == ["flood"] and not turns._waiting


def test_a_source_that_fails_its_turn_takes_it_from_nobody() -> None:
    class Broken(Asking):
        def serve(self) -> None:
            raise RuntimeError

    clock, served = TurnByTurn(), []
    turns = Turns(clock, 1)
    Asking(turns, served, "first")
    Broken(turns, served, "broken")
    Asking(turns, served, "other")
    for _ in range(2):
        try:
            clock.turn()
        except RuntimeError:
            served.append("raised")
    assert served == ["first", "raised", "other"]


# -- on connections


async def hello(request: Request) -> NameOf:
    return NameOf("hello")


class Paused(StringTransport):
    """A transport that may be paused twice, as the real one may."""

    reading = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def abortConnection(self) -> None:
        self.disconnected = True


class Pipelined:
    """Plain connections to one site, whose turns a Clock gives."""

    REQUEST = b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n"

    def __init__(self) -> None:
        self.clock = TurnByTurn()
        api = Api(Gate(TrustedList(), Refusals(self.clock, lambda refusal: None)))
        api.add_open("GET", "/open", hello)
        self.site = Site(self.clock, api)

    def connect(self) -> tuple[StringTransport, object]:
        transport = Paused()
        channel = self.site.buildProtocol(None)
        channel.makeConnection(transport)
        return transport, channel

    @staticmethod
    def answers(transport: StringTransport) -> int:
        return transport.value().count(b"HTTP/1.1 200 OK")


def test_pipelined_requests_are_served_a_few_a_turn_and_not_read_on_meanwhile() -> None:
    site = Pipelined()
    transport, channel = site.connect()
    channel.dataReceived(site.REQUEST * 2000)
    assert site.answers(transport) == AT_ONCE
    assert not transport.reading
    other, second = site.connect()
    second.dataReceived(site.REQUEST)
    site.clock.turn()
    assert site.answers(other) == 1
    assert site.answers(transport) <= 2 * AT_ONCE
    for _ in range(2000):
        assert transport.reading or site.answers(transport) < 2000
        site.clock.turn()
    assert site.answers(transport) == 2000
    assert transport.reading


def test_a_request_that_waits_for_its_turn_is_cut_by_no_time_out() -> None:
    site = Pipelined()
    _, channel = site.connect()
    channel.dataReceived(site.REQUEST * 9)
    waiting, second = site.connect()
    second.dataReceived(site.REQUEST)
    assert not site.answers(waiting)
    times = [call.getTime() for call in site.clock.getDelayedCalls()]
    assert times == [0.0], "nothing but the next turn is waited for"
    site.clock.turn()
    assert site.answers(waiting) == 1
    assert KEPT_S in [call.getTime() for call in site.clock.getDelayedCalls()]


def test_what_waits_of_a_connection_that_went_is_not_served() -> None:
    site = Pipelined()
    transport, channel = site.connect()
    channel.dataReceived(site.REQUEST * 100)
    transport.clear()
    channel.connectionLost()
    for _ in range(100):
        site.clock.turn()
    assert not transport.value()
    assert not site.clock.getDelayedCalls()
