"""Wall clocks that a test sets, by libfaketime (Debian: faketime); the boot clock and the monotonic one stay real."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..real.programs import Home
from .users import give

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
HOUR = 3600.0
YEAR = 365 * 24 * HOUR


class WallClock:
    """The wall clock of *home*'s programs."""

    def __init__(self, home: Home) -> None:
        assert LIBRARY is not None
        self._file = home.log.parent / "clock"
        self.ahead = 0.0
        self.set(0.0)
        # Only once the user is the right one: the library makes files that are the user's alone.
        home.before = (
            *home.before,
            "env",
            f"LD_PRELOAD={LIBRARY}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )

    def set(self, ahead: float) -> None:
        """Have the clock be *ahead* of the real one by so many seconds, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.0f}")
        give(new).replace(self._file)
        self.ahead = ahead


def tidy_up() -> None:
    """Take away what the library leaves of each process that is gone."""
    for name in ("faketime_shm_", "sem.faketime_sem_"):
        for path in Path("/dev/shm").glob(f"{name}*"):
            with contextlib.suppress(OSError):
                if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
                    path.unlink()
