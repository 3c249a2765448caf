"""How a run goes through its machines: by example, and any way at all against a plain model."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clustersh.coordinator.pacing import Begin, Pacing, Stop, allowed_failures, batch_size, batches
from clustersh.wire.codec import WireError, decode_json
from clustersh.wire.fleet import Pace

MACHINES = ("a", "b", "c", "d", "e")


def begin(pacing: Pacing, completed: bool = True) -> tuple[str, ...]:
    """Begin the next batch, and have all of it end."""
    step = pacing.next()
    assert isinstance(step, Begin)
    pacing.begun(step.machines)
    for machine in step.machines:
        pacing.ended(machine, completed=completed)
    return step.machines


@pytest.mark.parametrize(
    ("rolling", "machines", "size"),
    [
        ("25%", 10, 3),
        ("25%", 3, 1),
        ("25%", 4, 1),
        ("1%", 1, 1),
        ("99%", 2, 2),
        ("100%", 7, 7),
        ("33%", 100, 33),
        ("2", 10, 2),
        ("", 10, 10),
        ("999999", 3, 999999),
    ],
)
def test_a_batch_is_a_number_or_a_part_rounded_up(rolling: str, machines: int, size: int) -> None:
    assert batch_size(rolling, machines) == size


@pytest.mark.parametrize(
    ("max_failures", "machines", "allowed"),
    [
        ("", 10, 0),
        ("0", 10, 0),
        ("0%", 10, 0),
        ("10%", 20, 2),
        ("10%", 19, 1),
        ("10%", 9, 0),
        ("100%", 3, 3),
        ("4", 2, 4),
    ],
)
def test_failures_are_a_number_or_a_part_rounded_down(max_failures: str, machines: int, allowed: int) -> None:
    assert allowed_failures(max_failures, machines) == allowed


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        ('{"rolling": "0"}', "a batch is at least 1 machine"),
        ('{"rolling": "0%"}', "a batch is at least 1 machine"),
        ('{"rolling": "00", "canary": 1}', "a batch is at least 1 machine"),
        ('{"max_failures": "1"}', "say rolling or canary"),
        ("{}", "say rolling or canary"),
        ('{"rolling": "101%"}', "rolling"),
        ('{"rolling": "-1"}', "rolling"),
        ('{"rolling": "2.5%"}', "rolling"),
        ('{"rolling": "5\\n"}', "rolling"),
        ('{"rolling": "2", "max_failures": "some"}', "max_failures"),
        ('{"canary": -1}', "canary"),
    ],
)
def test_a_pace_that_can_not_be_kept_is_refused(pace: str, said: str) -> None:
    with pytest.raises(WireError, match=said):
        decode_json(pace.encode(), Pace)


def test_the_canary_goes_alone_then_the_batches() -> None:
    pacing = Pacing(MACHINES, Pace(rolling="3", canary=1))
    assert [begin(pacing), begin(pacing), begin(pacing)] == [("a",), ("b", "c", "d"), ("e",)]
    assert pacing.over and pacing.next() is None


def test_after_a_canary_alone_all_the_others_go_at_once() -> None:
    pacing = Pacing(MACHINES, Pace(canary=2))
    assert [begin(pacing), begin(pacing)] == [("a", "b"), ("c", "d", "e")]


def test_a_canary_larger_than_the_target_is_all_of_it() -> None:
    assert begin(Pacing(MACHINES, Pace(canary=99, rolling="1"))) == MACHINES


def test_what_is_in_doubt_counts_as_failed_until_it_turns_up() -> None:
    pacing = Pacing(MACHINES, Pace(rolling="2"))
    pacing.begun(("a", "b"))
    pacing.ended("a", completed=True)
    assert pacing.next() is None
    pacing.doubt(("b",))
    assert pacing.next() == Stop(("b",), begun=2)
    pacing.doubt(())
    assert pacing.next() is None, "it runs after all"
    pacing.ended("b", completed=True)
    assert pacing.next() == Begin(("c", "d"))


def test_a_machine_that_ends_before_it_begins_has_not_failed() -> None:
    pacing = Pacing(MACHINES, Pace(rolling="2", canary=1))
    pacing.ended("a", completed=False)
    assert begin(pacing) == ("b",), "the next one is the canary"
    pacing.ended("d", completed=False)
    assert pacing.next() == Begin(("c", "e"))


class PaceMachine(RuleBasedStateMachine):
    """Whatever happens, in whatever order: the model is what was begun, and how each of it is."""

    @initialize(
        number=st.integers(1, 12),
        rolling=st.sampled_from(["", "1", "2", "5", "1%", "25%", "50%", "100%"]),
        canary=st.integers(0, 13),
        max_failures=st.sampled_from(["", "0", "1", "3", "10%", "50%", "100%"]),
    )
    def start(self, number: int, rolling: str, canary: int, max_failures: str) -> None:
        self.machines = [f"m{each}" for each in range(number)]
        self.pace = Pace(rolling=rolling, canary=canary or int(not rolling), max_failures=max_failures)
        self.pacing = Pacing(self.machines, self.pace)
        self.begun: list[str] = []
        self.state: dict[str, str] = {}
        self.stopped = False

    def _in(self, *states: str) -> list[str]:
        return [machine for machine, state in self.state.items() if state in states]

    @rule(crash=st.booleans())
    def step(self, crash: bool) -> None:
        """Do what is to be done; perhaps it is a new life's, that was told what has been recorded."""
        if crash:
            self._restart()
        step = self.pacing.next()
        failed = len(self._in("failed", "doubted"))
        allowed = allowed_failures(self.pace.max_failures, len(self.machines))
        rest = [machine for machine in self.machines if machine not in self.state]
        if self.stopped or not rest or self._in("running"):
            assert step is None
        elif failed > allowed:
            assert isinstance(step, Stop), "too many have failed"
            assert (sorted(step.failed), step.begun) == (sorted(self._in("failed", "doubted")), len(self.begun))
            self.stopped = True
            self.pacing.stop()
        else:
            assert isinstance(step, Begin), "nothing keeps it"
            first = self.pace.canary and not self.begun
            size = self.pace.canary if first else batch_size(self.pace.rolling, len(self.machines))
            assert list(step.machines) == rest[:size], "the next ones, as many as a batch takes"
            self.begun += step.machines
            self.state.update(dict.fromkeys(step.machines, "running"))
            self.pacing.begun(step.machines)
            assert self.pacing.next() is None, "one batch at a time"

    def _restart(self) -> None:
        self.pacing = Pacing(self.machines, self.pace)
        self.pacing.begun(self.begun)
        for machine in self._in("completed", "failed", "never"):
            self.pacing.ended(machine, completed=self.state[machine] == "completed")
        self.pacing.doubt(self._in("doubted"))
        if self.stopped:
            self.pacing.stop()

    @precondition(lambda self: self._in("running", "doubted"))
    @rule(data=st.data(), completed=st.booleans())
    def ends(self, data: st.DataObject, completed: bool) -> None:
        machine = data.draw(st.sampled_from(self._in("running", "doubted")))
        for _ in range(data.draw(st.integers(1, 2))):
            self.pacing.ended(machine, completed=completed)
        self.state[machine] = "completed" if completed else "failed"

    @precondition(lambda self: self._in("running", "doubted"))
    @rule(data=st.data())
    def doubt(self, data: st.DataObject) -> None:
        open_ = self._in("running", "doubted")
        assert self.pacing.open == set(open_)
        doubted = data.draw(st.sets(st.sampled_from(self.machines)))
        self.pacing.doubt(doubted)
        self.state.update({machine: "doubted" if machine in doubted else "running" for machine in open_})

    @rule(data=st.data(), all_=st.booleans())
    def cancelled(self, data: st.DataObject, all_: bool) -> None:
        """What has not begun ends at once."""
        left = [machine for machine in self.machines if machine not in self.state]
        for machine in left if all_ else left[:1]:
            self.pacing.ended(machine, completed=False)
            self.state[machine] = "never"

    @invariant()
    def each_began_at_most_once(self) -> None:
        if hasattr(self, "begun"):
            assert len(set(self.begun)) == len(self.begun)
            assert not set(self.begun) & set(self._in("never"))
            left = [machine for machine in self.machines if machine not in self.state]
            assert list(self.pacing.left) == left
            assert self.pacing.over == (self.stopped or not left)

    @rule()
    def it_ends(self) -> None:
        """From anywhere it comes to its end, if only every job does."""
        for _ in range(len(self.machines) + 1):
            for machine in self._in("running", "doubted"):
                self.pacing.ended(machine, completed=True)
                self.state[machine] = "completed"
            if self.pacing.over:
                break
            self.step(crash=False)
        assert self.pacing.over


TestPaceMachine = PaceMachine.TestCase
TestPaceMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@given(st.integers(1, 200), st.integers(1, 100))
def test_parts_of_all_sizes_come_to_the_end(machines: int, percent: int) -> None:
    names = [str(number) for number in range(machines)]
    pacing, batches = Pacing(names, Pace(rolling=f"{percent}%")), 0
    begun: list[str] = []
    while not pacing.over:
        begun += begin(pacing)
        batches += 1
    assert begun == names
    assert batches <= -(-100 // percent)


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        (None, ["abcde"]),
        (Pace(rolling="2"), ["ab", "cd", "e"]),
        (Pace(rolling="2", canary=1), ["a", "bc", "de"]),
        (Pace(canary=2), ["ab", "cde"]),
        (Pace(rolling="50%"), ["abc", "de"]),
    ],
    ids=repr,
)
def test_the_batches_of_a_plan_are_those_of_a_run_where_nothing_fails(pace: Pace | None, expected: list[str]) -> None:
    assert ["".join(batch) for batch in batches("abcde", pace)] == expected
