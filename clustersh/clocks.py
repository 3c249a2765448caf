"""The boot clock: seconds that count while the machine sleeps and that nobody can set."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any


def _choose() -> Callable[[], float]:
    """Return what is read some fifty times for each job.

    Linux has CLOCK_BOOTTIME; macOS's CLOCK_MONOTONIC counts sleep too, though Python's `time.monotonic` there doesn't;
    Windows's counts sleep.
    """
    if sys.platform == "linux":
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    return time.monotonic


boot_clock = _choose()
"""Returns the seconds since some moment at or before this boot."""


def use_boot_clock(reactor: Any) -> None:
    """Have *reactor*'s timers go by the boot clock; call it before there is any.

    Twisted's own go by the wall clock: set forward it ends every command by its time-out, set back it stops them all.
    """
    reactor.seconds = boot_clock
