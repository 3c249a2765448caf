"""Limits on how often something may happen."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .addresses import IpAddress


@dataclass
class Bucket:
    """Holds up to *burst* tokens and gets *rate* new ones a second."""

    rate: float
    burst: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Add what has come in since the last call."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now

    def take(self, now: float, tokens: int = 1) -> bool:
        """Take so many tokens; False where there are less."""
        self.refill(now)
        if self.level < tokens:
            return False
        self.level -= tokens
        return True


class RateLimit:
    """A bucket for each source, of which at most *sources* are remembered. *clock* gives seconds that never jump."""

    def __init__(self, clock: Callable[[], float], rate: float, burst: float, sources: int = 4096) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._sources = sources
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def left(self, source: str) -> bool:
        """Whether `take` would succeed."""
        bucket = self._buckets.get(source)
        if bucket is None:
            return True
        bucket.refill(self._clock())
        return bucket.level >= 1

    def wait_s(self, source: str, tokens: int) -> float:
        """Return in how many seconds *source* will have so many tokens, of *burst* at most."""
        bucket = self._buckets.get(source)
        if bucket is None:
            return 0.0
        bucket.refill(self._clock())
        return max(0.0, (tokens - bucket.level) / self._rate)

    def take(self, source: str, tokens: int = 1) -> bool:
        """Take so many of *source*'s tokens; False where it has less."""
        now = self._clock()
        bucket = self._buckets.get(source) or Bucket(self._rate, self._burst, self._burst, now)
        self._buckets[source] = bucket
        self._buckets.move_to_end(source)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return bucket.take(now, tokens)


def source_of(address: IpAddress) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
