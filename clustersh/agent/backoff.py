"""When to try the coordinator again, and when not to wait for that."""

from __future__ import annotations

import random
from collections.abc import Callable

import psutil

FIRST_S = 1.0
SLEPT_S = 5.0
"""Seconds that the boot clock must run ahead of the monotonic clock to count as sleep."""


class Backoff:
    """Doubles from 1 s up to *longest* seconds; each wait is 50% to 100% of that, so that a fleet spreads out."""

    def __init__(self, longest: float, jitter: Callable[[], float] = random.random) -> None:
        self._longest = longest
        self._jitter = jitter
        self._next = FIRST_S

    def next(self) -> float:
        """Return how long to wait (seconds) after one more failure."""
        wait = min(self._next, self._longest)
        self._next = min(self._next * 2, self._longest)
        return wait * (0.5 + 0.5 * self._jitter())

    def longest(self) -> float:
        """Return the longest wait; the next ones are as long."""
        self._next = self._longest
        return self.next()

    def reset(self) -> None:
        """Begin again at 1 s."""
        self._next = FIRST_S


class Change:
    """Notices that the machine slept, or has other addresses: what failed before may work now."""

    def __init__(
        self, boot_clock: Callable[[], float], monotonic: Callable[[], float], addresses: Callable[[], frozenset[str]]
    ) -> None:
        self._boot_clock = boot_clock
        self._monotonic = monotonic
        self._find_addresses = addresses
        self._offset = boot_clock() - monotonic()
        self._addresses = addresses()

    def happened(self) -> bool:
        """Whether something changed since this was last asked."""
        offset, addresses = self._boot_clock() - self._monotonic(), self._find_addresses()
        changed = offset - self._offset > SLEPT_S or addresses != self._addresses
        self._offset, self._addresses = offset, addresses
        return changed


def local_addresses() -> frozenset[str]:
    """Return this machine's network addresses; none where they can't be found out just now."""
    try:
        found = psutil.net_if_addrs()
    except OSError:
        return frozenset()
    return frozenset(address.address for addresses in found.values() for address in addresses if address.address)
