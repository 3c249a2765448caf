"""When an agent tells how its machine does."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from clustersh.agent.vitals import FIRST_S, JITTER, Reporter
from clustersh.wire.link import VITALS_S, AskVitals, Failed, FromAgent, Vitals, VitalsReport

FOUND = Vitals(12.0, 30.0, 40.0, 50.0)


class World:
    """A link that comes up and goes, and what was sent through it; *found* is what is measured."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[float, FromAgent]] = []
        self.found: Vitals | None = FOUND
        self.part = 0.5
        self.reporter = Reporter(
            self.clock, self.measure, self.send, lambda least, most: least + self.part * (most - least)
        )

    async def measure(self) -> Vitals | None:
        return self.found

    def send(self, message: FromAgent) -> None:
        self.sent.append((self.clock.seconds(), message))

    def times(self) -> list[float]:
        return [when for when, _ in self.sent]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("part", "times"),
    [
        (0.0, [0.0, VITALS_S * (1 - JITTER), 2 * VITALS_S * (1 - JITTER)]),
        (1.0, [FIRST_S, FIRST_S + VITALS_S * (1 + JITTER), FIRST_S + 2 * VITALS_S * (1 + JITTER)]),
    ],
)
def test_the_first_report_comes_soon_and_the_others_every_half_minute_or_so(
    world: World, part: float, times: list[float]
) -> None:
    world.part = part
    world.reporter.start()
    world.reporter.start()
    for _ in range(1000):
        world.clock.advance(0.1)
        if len(world.sent) == len(times):
            break
    assert world.times() == pytest.approx(times, abs=0.11)
    assert {message for _, message in world.sent} == {VitalsReport(FOUND, 0)}


def test_two_agents_that_came_together_drift_apart() -> None:
    first, second = World(), World()
    first.reporter = Reporter(first.clock, first.measure, first.send)
    second.reporter = Reporter(second.clock, second.measure, second.send)
    for world in (first, second):
        world.reporter.start()
        world.clock.pump([0.05] * 4000)
    assert len(first.sent) >= 6 and first.times() != second.times()


def test_a_link_that_went_gets_no_more(world: World) -> None:
    world.reporter.start()
    world.clock.advance(FIRST_S)
    assert len(world.sent) == 1
    world.reporter.stop()
    world.clock.advance(10 * VITALS_S)
    assert len(world.sent) == 1 and world.clock.getDelayedCalls() == []
    world.reporter.stop()


@pytest_twisted.ensureDeferred
async def test_who_asks_is_answered_at_once(world: World) -> None:
    world.reporter.asked(AskVitals(7))
    world.found = None
    world.reporter.asked(AskVitals(8))
    assert [message for _, message in world.sent] == [
        VitalsReport(FOUND, 7),
        Failed(8, "unavailable", "this machine does not tell how it does"),
    ]


def test_a_machine_that_tells_nothing_is_silent(world: World) -> None:
    world.found = None
    world.reporter.start()
    world.clock.advance(FIRST_S)
    assert world.sent == []
