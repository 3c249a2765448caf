"""Placement in memory: which machines are chosen, and that twenty clients at once spread out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from zope.interface import implementer

from clustersh.coordinator.placement import Candidate, Choice, IPlacement
from clustersh.coordinator.placement.least_loaded import LeastLoaded
from clustersh.coordinator.placement.placer import RECORDED_WITHIN_S, Placed, Placer
from clustersh.coordinator.placement.policies import MAX_WHY, Policies
from clustersh.coordinator.placement.scores import LEAST_STEP, MOST_CPUS, STALE_S, placing_score, score, step
from clustersh.coordinator.registry import Key
from clustersh.trust.identity import Role
from clustersh.wire.fleet import Placement
from clustersh.wire.link import Vitals
from clustersh.wire.problems import Kind, ProblemError

ONE, CALM = Placement(raw=True), Vitals(20, 30, 40, 35)


def key(name: str, *, new: bool = False) -> Key:
    return Key(f"key of {name}", Role.AGENT, name, f"id-{name}", "192.0.2.1", "", new=new)


@dataclass
class Sight:
    """What a coordinator would see, as plain data; *jobs* are those under way, by machine."""

    said: dict[str, tuple[Vitals, float]] = field(default_factory=dict)
    away: dict[str, str] = field(default_factory=dict)
    processors: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, set[str]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    now: float = 1000.0

    def status(self, machine_id: str) -> str:
        return self.away.get(machine_id, "online")

    def vitals(self, machine_ids: Iterable[str]) -> dict[str, tuple[Vitals, float]]:
        said = {machine_id: self.said[machine_id] for machine_id in machine_ids if machine_id in self.said}
        return {machine_id: (vitals, self.now - at) for machine_id, (vitals, at) in said.items()}

    def cpus(self, machine_id: str) -> int:
        return self.processors.get(machine_id, 4)

    def running(self, machine_id: str) -> int:
        return len(self.jobs.get(machine_id, ()))

    def under_way(self, uuid: str, machine_id: str) -> bool | None:
        if uuid in self.over:
            return False
        return True if uuid in self.jobs.get(machine_id, ()) else None


class World:
    """A placer over machines that say *vitals* (None: nothing) when they begin."""

    def __init__(self, **vitals: Vitals | None) -> None:
        self.sight = Sight({f"id-{name}": (said, 1000.0) for name, said in vitals.items() if said})
        self.machines = tuple(key(name) for name in vitals)
        self.placer = Placer(Policies(), self.sight, lambda: self.sight.now)
        self.runs = 0

    def place(self, placement: Placement = ONE, *, recorded: bool = True) -> list[str]:
        """Place one more run, as a request does, and return the names it goes to."""
        self.runs += 1
        placed = self.placer.place(f"run-{self.runs}", self.machines, placement)
        for machine in placed.machines if recorded else ():
            self.sight.jobs.setdefault(machine.id, set()).add(f"run-{self.runs}")
        return [machine.name for machine in placed.machines]

    def many(self, times: int, *, recorded: bool = True) -> Counter[str]:
        return Counter(name for _ in range(times) for name in self.place(recorded=recorded))

    def end_all(self) -> None:
        self.sight.over |= {uuid for jobs in self.sight.jobs.values() for uuid in jobs}
        self.sight.jobs.clear()

    def report(self, name: str, vitals: Vitals) -> None:
        self.sight.said[f"id-{name}"] = (vitals, self.sight.now)


# -- the score


@pytest.mark.parametrize(
    ("vitals", "expected"),
    [
        (Vitals(0, 0, 0, 0), 0.0),
        (Vitals(100, 100, 100, 100), 1.0),
        (Vitals(50, 0, 0, 0), 0.2),
        (Vitals(0, 50, 0, 0), 0.15),
        (Vitals(0, 0, 50, 10), 0.15),
        (Vitals(0, 0, 10, 50), 0.15),
        (Vitals(0, 0, None, 50), 0.15),
        (Vitals(0, 0), 0.3),
    ],
)
def test_the_score_weighs_processor_memory_and_the_fuller_disk(vitals: Vitals, expected: float) -> None:
    assert score(vitals) == pytest.approx(expected)


def test_placement_compares_the_same_score_where_nothing_runs() -> None:
    assert placing_score(Candidate("a", "a", CALM, 5.0, 4)) == pytest.approx(score(CALM))


# -- who is chosen


def test_the_machine_with_the_lowest_score_is_chosen_and_it_is_said_why() -> None:
    world = World(a=Vitals(70, 50, 50, 50), b=Vitals(20, 35, 30, 40), c=Vitals(45, 50, 60, 10))
    placed = world.placer.choose(world.machines, ONE)
    assert [machine.name for machine in placed.machines] == ["b"]
    assert placed.words == (
        "Selected b: score 0.30; cpu 20% (group 45%), memory 35% (group 45%), disk 40% (group 50%)",
    )


def test_one_machine_alone_is_compared_with_no_group() -> None:
    world = World(a=CALM, mute=None)
    assert world.placer.choose(world.machines, ONE).words == ("Selected a: score 0.29; cpu 20%, memory 30%, disk 40%",)


def test_several_are_chosen_best_first_and_kept_in_the_targets_order() -> None:
    world = World(a=Vitals(50, 0, 0, 0), b=Vitals(90, 0, 0, 0), c=Vitals(10, 0, 0, 0))
    placed = world.placer.choose(world.machines, Placement(pick=2))
    assert names(placed) == ["a", "c"]
    assert [words.split()[1] for words in placed.words] == ["c:", "a:"]


def test_machines_that_say_nothing_come_after_those_that_do_and_batteries_last() -> None:
    busy, tired = Vitals(99, 99, 99, 99), Vitals(0, 0, 0, 0, on_battery=True)
    world = World(laptop=tired, mute=None, stale=Vitals(0, 0, 0, 0), busy=busy)
    world.sight.now += STALE_S
    world.report("busy", busy)
    world.report("laptop", tired)
    world.sight.now += 1
    order = [world.placer.choose(world.machines, Placement(pick=pick)).words[-1] for pick in (1, 2, 3, 4)]
    assert [words.split()[1] for words in order] == ["busy:", "mute:", "stale:", "laptop:"]
    assert "not told its load" in order[1]
    assert "as of 1m31s ago" in order[2]
    assert "on battery" in order[3]


def test_vitals_count_until_they_are_stale_and_not_after() -> None:
    world = World(old=Vitals(0, 0, 0, 0), new=Vitals(90, 90, 90, 90))
    world.sight.now += STALE_S
    world.report("new", Vitals(90, 90, 90, 90))
    assert world.place() == ["old"]
    world.end_all()
    world.sight.now += 0.1
    assert world.place() == ["new"]


def test_offline_and_new_machines_are_never_chosen() -> None:
    world = World(away=Vitals(0, 0, 0, 0), fresh=Vitals(0, 0, 0, 0), there=Vitals(90, 90, 90, 90))
    world.machines = (key("away"), key("fresh", new=True), key("there"))
    world.sight.away["id-away"] = "offline"
    assert world.many(9) == {"there": 9}
    with pytest.raises(
        ProblemError, match=r"2 machines .* of the target's 3 only 1 can be chosen \(1 offline, 1 new\)"
    ) as caught:
        world.place(Placement(pick=2))
    assert caught.value.problem.kind is Kind.EMPTY_TARGET
    assert caught.value.problem.started is False


def test_machines_that_are_expected_back_are_chosen_only_where_there_are_too_few_others() -> None:
    world = World(back=Vitals(0, 0, 0, 0), there=Vitals(90, 90, 90, 90))
    world.sight.away["id-back"] = "reconnecting"
    assert world.many(9) == {"there": 9}
    assert world.place(Placement(pick=2)) == ["back", "there"]


# -- what was just placed


def test_twenty_at_once_spread_evenly_over_machines_with_equal_load() -> None:
    assert world_of_four().many(20) == {"a": 5, "b": 5, "c": 5, "d": 5}


@pytest.mark.parametrize("recorded", [True, False])
def test_machines_with_unequal_load_get_as_many_more_as_their_scores_differ_by_steps(recorded: bool) -> None:
    """They are 0.4 apart, and a job counts 0.1 on 4 processors, also before it is in any record."""
    world = World(a=Vitals(0, 0, 0, 0), b=Vitals(100, 0, 0, 0))
    assert world.many(20, recorded=recorded) == {"a": 12, "b": 8}


@pytest.mark.parametrize(("cpus", "expected"), [(0, 0.4), (1, 0.4), (4, 0.1), (8, LEAST_STEP), (1 << 62, LEAST_STEP)])
def test_what_a_placed_job_adds_is_bounded_whatever_a_machine_says_of_its_processors(
    cpus: int, expected: float
) -> None:
    assert step(Candidate("a", "a", cpus=cpus)) == pytest.approx(expected)


def test_equal_machines_take_turns_also_where_each_run_is_over_before_the_next() -> None:
    world, chosen = world_of_four(), []
    for _ in range(8):
        chosen += world.place()
        world.end_all()
    assert chosen == ["a", "b", "c", "d"] * 2


def test_a_placed_run_counts_until_it_ends() -> None:
    world = World(a=CALM, b=Vitals(30, 30, 40, 35))
    assert world.place() == ["a"]
    assert names(world.placer.choose(world.machines, ONE)) == ["b"]
    world.end_all()
    assert names(world.placer.choose(world.machines, ONE)) == ["a"]


def test_a_placed_run_counts_until_the_vitals_can_show_it() -> None:
    world = World(a=CALM, b=CALM)
    world.place()
    world.sight.now += 30
    words = world.placer.choose(world.machines, Placement(pick=2)).words
    assert "1 job just placed there count 0.10 of it" in words[1]
    world.report("a", CALM)
    words = world.placer.choose(world.machines, Placement(pick=2)).words
    assert not [text for text in words if "just placed" in text]


def test_a_run_that_was_placed_but_never_recorded_counts_for_a_moment_only() -> None:
    world = World(a=CALM, b=Vitals(30, 30, 40, 35))
    assert world.place(recorded=False) == ["a"]
    world.sight.now += RECORDED_WITHIN_S
    assert names(world.placer.choose(world.machines, ONE)) == ["b"]
    world.sight.now += 0.1
    assert names(world.placer.choose(world.machines, ONE)) == ["a"]


def test_a_run_that_could_not_be_made_was_never_placed() -> None:
    world = world_of_four()
    assert world.place() == ["a"]
    world.end_all()
    for _ in range(3):
        with pytest.raises(KeyError), world.placer.making(f"run-{world.runs + 1}"):
            assert world.place(recorded=False) == ["b"], "no turn was used up"
            raise KeyError
    with world.placer.making(f"run-{world.runs + 1}"):
        assert world.place() == ["b"]
    world.end_all()
    assert world.place() == ["c"]


def test_choosing_without_placing_counts_nothing() -> None:
    world = world_of_four()
    first = [world.placer.choose(world.machines, ONE).machines for _ in range(3)]
    assert len(set(first)) == 1
    assert world.many(4) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_nothing_is_kept_of_a_machine_that_was_forgotten() -> None:
    world = World(a=CALM, b=CALM)
    world.place()
    world.placer.forget("id-a")
    assert "just placed" not in world.placer.choose(world.machines[:1], ONE).words[0]


# -- a machine's own word


def test_a_machine_that_runs_many_jobs_and_claims_to_be_idle_is_not_believed() -> None:
    world = World(liar=Vitals(0, 35, 35, 35), honest=Vitals(60, 35, 35, 35))
    world.sight.jobs["id-liar"] = {f"earlier-{n}" for n in range(30)}
    placed = world.placer.choose(world.machines, Placement(pick=2))
    assert [words.split()[1] for words in placed.words] == ["honest:", "liar:"]
    assert "it says 0% but has 30 jobs" in placed.words[1]


def test_a_liar_does_not_get_everything_whatever_it_says_and_however_often() -> None:
    """It says that it is empty, huge and fresh before each placement, and nothing that runs there ever ends."""
    world = World(liar=Vitals(0, 0, 0, 0), honest=Vitals(60, 60, 60, 60))
    world.sight.processors["id-liar"] = 1 << 62
    counted: Counter[str] = Counter()
    for _ in range(400):
        world.sight.now += 0.001
        world.report("liar", Vitals(0, 0, 0, 0))
        world.report("honest", Vitals(60, 60, 60, 60))
        counted.update(world.place())
        if world.sight.running("id-honest"):  # the honest one's jobs end
            world.sight.over |= world.sight.jobs.pop("id-honest")
    # 0.6 is the honest score; each of the liar's jobs adds 0.4 / 64 to its own.
    assert counted["liar"] == pytest.approx(0.6 * MOST_CPUS / 0.4, abs=2)


def test_what_an_honest_machine_says_counts_where_it_has_few_jobs() -> None:
    world = World(a=Vitals(80, 30, 30, 30), b=Vitals(20, 30, 30, 30))
    world.sight.jobs["id-b"] = {"earlier"}
    assert world.place() == ["b"]


# -- plugins


@implementer(IPlacement)
class LastName:
    """Chooses the last names."""

    name = "last-name"

    def choose(self, candidates: Any, pick: int) -> Any:
        return [Choice(each.id, f"the last of {len(candidates)}") for each in candidates[::-1][:pick]]


def answering(answer: Any) -> Any:
    """A plugin that answers that, or raises it."""

    @implementer(IPlacement)
    class Plugin:
        name = "mine"

        def choose(self, candidates: Any, pick: int) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

    return Plugin()


def test_a_plugin_chooses_beside_the_built_in_policy() -> None:
    world = World(a=CALM, b=CALM)
    placer = Placer(Policies([LastName()]), world.sight, lambda: 0.0)
    assert placer.choose(world.machines, Placement("last-name")).words == ("Selected b: the last of 2",)
    assert placer.choose(world.machines, Placement()).words[0].startswith("Selected a: score")


def test_a_policy_that_is_not_there_is_named_with_those_that_are() -> None:
    placer = Placer(Policies([LastName()]), Sight(), lambda: 0.0)
    with pytest.raises(ProblemError, match="no placement policy 'lest-loaded'") as caught:
        placer.choose([], Placement("lest-loaded"))
    assert caught.value.problem.kind is Kind.BAD_REQUEST
    assert "last-name, least-loaded" in caught.value.problem.hint


CANDIDATES = [Candidate("a", "id-a"), Candidate("b", "id-b")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (SystemExit(3), "SystemExit: 3"),
        (None, "something other than a list of choices"),
        ("id-a", "something other than a list of choices"),
        (["id-a"], "something other than a list of choices"),
        ([Choice("id-a", None)], "choices that are not made of texts"),  # type: ignore[arg-type]
        ([Choice(["id-a"], "")], "choices that are not made of texts"),  # type: ignore[arg-type]
        ([], "0 machines where 1 were asked for"),
        ([Choice("id-a", ""), Choice("id-b", "")], "2 machines where 1 were asked for"),
        ([Choice("id-c", "")], "a machine that was no candidate"),
    ],
    ids=repr,
)
def test_what_a_plugin_does_wrong_is_an_error_that_names_it(answer: Any, said: str) -> None:
    with pytest.raises(ProblemError) as caught:
        Policies([answering(answer)]).choose("mine", CANDIDATES, 1)
    problem = caught.value.problem
    assert (problem.kind, problem.started) == (Kind.INTERNAL, False)
    assert problem.detail.startswith("the placement policy 'mine' failed: ")
    assert said in problem.detail


def test_one_machine_chosen_twice_is_not_two() -> None:
    with pytest.raises(ProblemError, match="1 machines where 2 were asked for"):
        Policies([answering([Choice("id-a", ""), Choice("id-a", "")])]).choose("mine", CANDIDATES, 2)


def test_a_plugins_words_are_bounded() -> None:
    (choice,) = Policies([answering([Choice("id-a", "w" * 9999)])]).choose("mine", CANDIDATES, 1)
    assert choice.why == "w" * MAX_WHY


@pytest.mark.parametrize("name", [None, 7, "", "Mine", "-a", "a b", "x" * 65, "least-loaded"], ids=repr)
def test_a_plugin_without_a_proper_name_of_its_own_is_left_out(name: Any) -> None:
    plugin = answering([Choice("id-b", "mine")])
    plugin.name = name
    policies = Policies([plugin, LastName()])
    assert policies.names == ["last-name", "least-loaded"]
    assert policies.choose("least-loaded", CANDIDATES, 1)[0].id == "id-a"


def test_the_built_in_policy_is_one_by_the_interface() -> None:
    assert IPlacement.providedBy(LeastLoaded())


def names(placed: Placed) -> list[str]:
    return [machine.name for machine in placed.machines]


def world_of_four() -> World:
    return World(a=CALM, b=CALM, c=CALM, d=CALM)
