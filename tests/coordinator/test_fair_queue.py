"""Sources take turns: nobody waits for more than one thing of each other, and what is removed costs nobody a turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from clustersh.coordinator.fair_queue import FairLock, FairQueue


def queue_of(*things: str) -> FairQueue[str]:
    """Have *things* wait, each of the source that is its first letter."""
    queue: FairQueue[str] = FairQueue()
    for thing in things:
        queue.put(thing[0], thing)
    return queue


def all_of(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (thing := queue.take()) is not None:
        taken.append(thing)
    return taken


def test_sources_take_turns_each_in_its_own_order() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", "c1", "c2")
    assert len(queue) == 6
    assert all_of(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert not queue and queue.take() is None


def test_whoever_comes_while_another_has_its_turn_is_next() -> None:
    queue = queue_of("a1", "a2", "a3")
    assert queue.take() == "a1"
    queue.put("b", "b1")
    assert all_of(queue) == ["b1", "a2", "a3"]
    queue.put("a", "a4")
    queue.put("b", "b2")
    assert all_of(queue) == ["b2", "a4"], "the last turn was a's"


def test_who_comes_back_at_once_does_not_get_in_before_those_who_wait() -> None:
    queue, taken = queue_of("a1", "b1", "c1", "d1"), []
    for n in range(6):
        taken.append(queue.take())
        queue.put("a", f"a{n + 2}")
    assert taken == ["a1", "b1", "c1", "d1", "a2", "a3"]


def test_what_was_removed_is_not_taken_and_costs_nobody_a_turn() -> None:
    queue = queue_of("a1", "a2", "b1", "c1", "c2")
    for thing in ("b1", "c1", "nothing"):
        queue.remove(thing)
    assert len(queue) == 3
    queue.put("b", "b2")
    assert all_of(queue) == ["a1", "b2", "c2", "a2"]
    queue.remove("a1")


def test_sources_of_which_nothing_waits_any_more_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    for n in range(100):
        queue.put(f"source {n}", f"thing {n}")
    for n in range(100):
        queue.remove(f"thing {n}")
    assert not queue._waiting and not queue._sources and not queue._source_of


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["put", "take", "remove"])), max_size=200))
def test_nobody_waits_for_two_turns_of_another(steps: list[tuple[str, str]]) -> None:
    """Of all sources, b comes now and then: between its coming and its turn each other one has one turn at most."""
    queue: FairQueue[str] = FairQueue()
    waiting: list[str] = []
    others: dict[str, list[str]] = {}
    for number, (source, step) in enumerate(steps):
        if step == "put":
            if not any(thing[0] == source for thing in waiting):
                others[source] = []
            waiting.append(f"{source}{number}")
            queue.put(source, waiting[-1])
        elif step == "remove":
            mine = [thing for thing in waiting if thing[0] == source]
            if mine:
                waiting.remove(mine[0])
                queue.remove(mine[0])
        elif (thing := queue.take()) is None:
            assert not waiting
        else:
            turn = thing[0]
            assert thing == next(each for each in waiting if each[0] == turn), "its own come in order"
            waiting.remove(thing)
            for each, seen in others.items():
                if each != turn and any(one[0] == each for one in waiting):
                    assert turn not in seen
                    seen.append(turn)
            others[turn] = []
        assert len(queue) == len(waiting)


def test_a_lock_is_held_by_one_at_a_time_and_given_on_by_turns() -> None:
    lock, held = FairLock(), []

    async def hold(source: str) -> None:
        await lock.take(source)
        held.append(source)

    waiting = [Deferred.fromCoroutine(hold(source)) for source in ("a", "a", "a", "b", "c")]
    assert held == ["a"]
    waiting[4].addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting[4].cancel()
    for expected in (["a", "b"], ["a", "b", "a"], ["a", "b", "a", "a"]):
        lock.let_go()
        assert held == expected
    lock.let_go()
    Deferred.fromCoroutine(hold("d"))
    assert held[-1] == "d"
