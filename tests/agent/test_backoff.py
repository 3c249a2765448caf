"""How long the agent waits before it tries again."""

from __future__ import annotations

from clustersh.agent.backoff import Backoff, Change, local_addresses


def test_waits_double_from_a_second_to_the_longest():
    backoff = Backoff(10, jitter=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next() == 1


def test_waits_are_spread_over_half_their_length():
    assert Backoff(60, jitter=lambda: 0.0).next() == 0.5
    assert all(0.5 <= Backoff(60).next() <= 1 for _ in range(100))


def test_sleep_and_other_addresses_are_noticed_once():
    clock = {"boot": 100.0, "monotonic": 40.0}
    addresses = {"10.0.0.5"}
    change = Change(lambda: clock["boot"], lambda: clock["monotonic"], lambda: frozenset(addresses))
    assert not change.happened()
    clock["boot"] += 30
    clock["monotonic"] += 30
    assert not change.happened()
    clock["boot"] += 3600
    assert change.happened()
    assert not change.happened()
    addresses.add("192.168.1.7")
    assert change.happened()
    assert not change.happened()


def test_this_machine_has_an_address():
    assert "127.0.0.1" in local_addresses()
