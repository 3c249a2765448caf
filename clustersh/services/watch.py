"""Waiting for a service: until it runs, until it is gone. What it says of itself in its folder is what counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..home import RunningService, read_running
from . import users
from .spec import Spec

T = TypeVar("T")
UP_S = 60.0
_LOOK_S = 0.05


class Watch:
    """Looks at the service's lock and ``run.json``; *pause* waits between two looks."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        look: Callable[[Path], RunningService | None] = read_running,
    ) -> None:
        self._now = now
        self._pause = pause
        self._look = look

    def running(self, spec: Spec) -> RunningService | None:
        """Return what the running service says of itself; None where none runs, or this user can't see it."""
        with users.acting_as(spec):
            return self._look(spec.folder)

    def until_up(self, spec: Spec, failed: Callable[[], bool] = lambda: False) -> RunningService | None:
        """Return the service once it is up; None where it isn't after a minute, or *failed* says it won't be."""

        def up() -> RunningService | None:
            found = self.running(spec)
            return found if found is not None and found.address else None

        return self._until(up, failed, UP_S)

    def until_gone(self, spec: Spec, pid: int, seconds: float) -> bool:
        """Return whether process *pid* of the service let go of the state within *seconds*."""

        def gone() -> bool | None:
            found = self.running(spec)
            return True if found is None or found.pid != pid else None

        return bool(self._until(gone, lambda: False, seconds))

    def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Return whether *true* became so within *seconds*."""
        return bool(self._until(lambda: true() or None, lambda: False, seconds))

    def unhurried(self) -> Watch:
        """Return one that looks as this one does, and waits for nothing."""
        return _Unhurried(self._now, self._pause, self._look)

    def _until(self, look: Callable[[], T | None], failed: Callable[[], bool], seconds: float) -> T | None:
        deadline = self._now() + seconds
        while True:
            found = look()
            if found is not None or failed() or self._now() > deadline:
                return found
            self._pause(_LOOK_S)


class _Unhurried(Watch):
    """What would be waited for counts as if it came."""

    def until_up(self, spec: Spec, failed: Callable[[], bool] = lambda: False) -> RunningService | None:
        return RunningService(0)

    def until_gone(self, spec: Spec, pid: int, seconds: float) -> bool:
        return True

    def until(self, true: Callable[[], bool], seconds: float) -> bool:
        return True
