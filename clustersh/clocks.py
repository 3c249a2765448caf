"""The boot clock: seconds that count while the machine sleeps and that nobody can set."""

from __future__ import annotations

import sys
import time


def boot_clock() -> float:
    """Return the seconds since some moment at or before this boot.

    Linux has CLOCK_BOOTTIME; macOS's CLOCK_MONOTONIC counts sleep too, though Python's `time.monotonic` there doesn't;
    Windows's counts sleep.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
