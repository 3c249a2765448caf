"""A sieve of keys never takes a used one for a new one, and hardly ever a new one for a used one."""

from __future__ import annotations

from clustersh.coordinator.key_sieve import KeySieve


def test_every_used_key_is_held_and_hardly_any_other() -> None:
    sieve = KeySieve(1 << 16)
    used = [(f"client-{number % 7}", f"key-{number}") for number in range(2000)]
    for client_id, key in used:
        sieve.add(client_id, key)
    assert all(sieve.may_hold(*each) for each in used)
    others = [(f"client-{(number + 1) % 7}", f"key-{number}") for number in range(2000)]
    assert sum(sieve.may_hold(*each) for each in others) < 20  # a full table of four bits a key: one in 6000


def test_a_sieve_that_is_full_takes_every_key_for_a_used_one() -> None:
    sieve = KeySieve(1 << 8)
    for number in range(2000):
        sieve.add("client", str(number))
    assert all(sieve.may_hold("client", f"new-{number}") for number in range(100))
