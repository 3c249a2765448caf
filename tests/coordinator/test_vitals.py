"""What the coordinator keeps of the machines' vitals, and asking many of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from clustersh.coordinator import vitals
from clustersh.coordinator.fleet import Fleet
from clustersh.coordinator.links import Link
from clustersh.coordinator.registry import Key
from clustersh.coordinator.vitals import ASK_S, FRESH_S, KEEP_S, VitalsBook
from clustersh.trust.identity import Role
from clustersh.wire.link import (
    AskVitals,
    Failed,
    FromAgent,
    FromCoordinator,
    Hello,
    Pulse,
    Vitals,
    VitalsReport,
    Welcome,
    Witness,
)

IDLE = Vitals(cpu=1.0, memory=2.0, disk_root=3.0, disk_home=4.0)
BUSY = Vitals(cpu=90.0, memory=2.0, disk_root=3.0, disk_home=4.0, jobs=5)


class Events:
    """Takes every machine in."""

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> FromCoordinator:
        return Welcome(epoch, machine.name, (), Witness(0, ""))


class Machine:
    """One link, and what it was sent; `answer` makes the answer to a question (None: it says nothing)."""

    def __init__(self, world: World, name: str, answer: Callable[[AskVitals], FromAgent | None]) -> None:
        self.world = world
        self.key = Key(f"key of {name}", Role.AGENT, name, f"id-{name}", "192.0.2.1", "")
        self.link = Link(self.key, "192.0.2.1", self.sent, lambda reason: None)
        self.answer = answer
        self.asked: list[AskVitals] = []
        world.run(world.fleet.hello(self.link, Hello("1", "i", "s", 0.0)))

    def sent(self, message: FromCoordinator) -> None:
        if isinstance(message, AskVitals):
            self.asked.append(message)
            answer = self.answer(message)
            if answer is not None:
                self.world.clock.callLater(0.01, self.says, answer)

    def says(self, message: FromAgent) -> None:
        self.world.fleet.received(self.link, message)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.fleet = Fleet(self.clock, self.clock.seconds, self.clock.seconds)
        self.fleet.events = Events()  # type: ignore[assignment]
        self.running: Counter[str] = Counter()
        self.book = VitalsBook(self.clock, self.fleet, lambda: self.running)
        self.fleet.on_vitals = self.book.said
        self.clock.advance(1000.0)

    def run(self, work: object) -> None:
        Deferred.fromCoroutine(work)  # type: ignore[arg-type]

    def machine(self, name: str, said: Vitals | None = IDLE) -> Machine:
        return Machine(self, name, lambda asked: VitalsReport(said, asked.request) if said else None)

    def refresh(self, *machines: Machine) -> Deferred[None]:
        return Deferred.fromCoroutine(self.book.refresh([machine.key.id for machine in machines]))

    def known(self, machine: Machine) -> tuple[Vitals, float] | None:
        return self.book.known([machine.key.id]).get(machine.key.id)


@pytest.fixture
def world() -> World:
    return World()


def test_the_newest_is_kept_with_its_age_by_the_coordinators_clock(world: World) -> None:
    web01 = world.machine("web01")
    assert world.known(web01) is None
    web01.says(VitalsReport(BUSY))
    world.clock.advance(12.0)
    web01.says(VitalsReport(IDLE))
    world.clock.advance(5.0)
    web01.says(Pulse(1e9))
    assert world.known(web01) == (IDLE, 5.0)
    world.clock.advance(KEEP_S - 5.0)
    assert world.known(web01) == (IDLE, KEEP_S)
    world.clock.advance(0.1)
    assert world.known(web01) is None


def test_a_machine_that_is_gone_leaves_nothing(world: World) -> None:
    web01 = world.machine("web01")
    web01.says(VitalsReport(IDLE))
    world.fleet.cut(web01.key.id, "forgotten")
    assert world.known(web01) == (IDLE, 0.0), "offline, it was like that a moment ago"
    world.book.forget(web01.key.id)
    assert world.known(web01) is None
    web01.says(VitalsReport(IDLE))
    assert world.known(web01) is None, "what a link says that was cut counts for nothing"


@pytest.mark.parametrize(("known", "said", "told"), [(0, 5, 5), (3, 0, 3), (9, 5, 9)])
def test_a_machine_runs_no_fewer_jobs_than_the_coordinator_knows_of(
    world: World, known: int, said: int, told: int
) -> None:
    web01 = world.machine("web01")
    world.running[web01.key.id] = known
    web01.says(VitalsReport(msgspec.structs.replace(IDLE, jobs=said)))
    found = world.known(web01)
    assert found is not None and found[0].jobs == told


def test_all_are_asked_at_once_and_one_that_does_not_answer_shows_its_last(world: World) -> None:
    quick, silent, broken, away = (world.machine(name) for name in ("quick", "silent", "broken", "away"))
    silent.answer = lambda asked: None
    broken.answer = lambda asked: Failed(asked.request, "unavailable", "it does not tell")
    for machine in (silent, broken, away):
        machine.says(VitalsReport(BUSY))
    world.fleet.closed(away.link)
    world.clock.advance(20.0)
    done = world.refresh(quick, silent, broken, away)
    assert [len(machine.asked) for machine in (quick, silent, broken, away)] == [1, 1, 1, 0]
    world.clock.advance(0.01)
    assert not done.called
    world.clock.advance(ASK_S - 0.01)
    assert done.called
    assert world.known(quick) == (IDLE, pytest.approx(ASK_S - 0.01))
    for machine in (silent, broken, away):
        assert world.known(machine) == (BUSY, pytest.approx(20.0 + ASK_S))
    assert silent.link.questions == {}
    silent.says(VitalsReport(IDLE, silent.asked[0].request))
    assert world.known(silent) == (IDLE, 0.0), "late, but the newest"


def test_those_who_ask_at_the_same_time_share_the_question(world: World) -> None:
    web01 = world.machine("web01")
    both = [world.refresh(web01), world.refresh(web01)]
    assert len(web01.asked) == 1
    world.clock.advance(0.01)
    assert all(done.called for done in both)
    world.clock.advance(FRESH_S)
    assert world.refresh(web01).called and len(web01.asked) == 1, "it told a moment ago"
    world.clock.advance(0.01)
    world.refresh(web01)
    assert len(web01.asked) == 2


def test_one_who_leaves_takes_nothing_from_the_others(world: World) -> None:
    web01 = world.machine("web01")
    leaves, stays = world.refresh(web01), world.refresh(web01)
    leaves.addErrback(lambda _: None)
    leaves.cancel()
    assert not stays.called
    world.clock.advance(0.01)
    assert stays.called and world.known(web01) == (IDLE, 0.0)


def test_a_machine_that_goes_while_it_is_asked_is_not_waited_for(world: World) -> None:
    web01 = world.machine("web01", None)
    done = world.refresh(web01)
    world.fleet.cut(web01.key.id, "forgotten")
    assert done.called


def test_many_machines_are_asked_in_several_turns_and_less_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "ASK_AT_ONCE", 8)
    monkeypatch.setattr(vitals, "ASKS_PER_S", 10)
    machines = [world.machine(f"m{number}") for number in range(40)]
    done = world.refresh(*machines)
    assert sum(len(machine.asked) for machine in machines) == 8
    world.clock.advance(0.0)  # a Clock takes all the turns at once
    assert [len(machine.asked) for machine in machines] == [1] * 40
    world.clock.advance(0.01)
    assert done.called
    world.clock.advance(3.9)
    assert world.refresh(*machines).called
    world.clock.advance(0.2)
    assert not world.refresh(*machines).called
