"""How this machine does, read without ever holding up the agent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Generic, NamedTuple, TypeVar

import psutil
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as WaitedEnough
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import boot_clock
from ..wire.link import Vitals

T = TypeVar("T")
PATIENCE_S = 1.0
"""Seconds that a reading is waited for: a network mount that hangs never answers."""
STALE_S = 300.0
"""Seconds for which the last reading stands for one that doesn't end."""
WINDOW_S = 1.0
"""Over less than that, a share of the processors says little."""


class SlowGauge(Generic[T]):
    """One figure that may take its time: read in a thread of its own, one at a time. What can't be read is None.

    The thread is none of the reactor's: those are waited for when the agent stops.
    """

    def __init__(self, reactor: Any, read: Callable[[], T | None]) -> None:
        self._reactor = reactor
        self._read = read
        self._value: T | None = None
        self._read_at = float("-inf")
        self._reading_since: float | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def value(self) -> T | None:
        """The last reading, unless that is too long ago."""
        return self._value if self._reactor.seconds() - self._read_at <= STALE_S else None

    def refresh(self) -> Deferred[None]:
        """Read anew. Fires when that is done, or has taken too long."""
        done: Deferred[None] = Deferred()
        now = self._reactor.seconds()
        if self._reading_since is not None and now - self._reading_since >= PATIENCE_S:
            done.callback(None)
            return done
        self._waiting.append(done)
        if self._reading_since is None:
            self._begin(now)
        return done.addTimeout(PATIENCE_S, self._reactor).addErrback(_enough)

    def _begin(self, now: float) -> None:
        try:
            Thread(target=self._run, name="gauge", daemon=True).start()
            self._reading_since = now
        except RuntimeError:  # there is no room for a thread
            self._done(None)

    def _run(self) -> None:
        try:
            value = self._read()
        except Exception:  # systems are many, and no figure of theirs is worth a crash
            value = None
        self._reactor.callFromThread(self._done, value)

    def _done(self, value: T | None) -> None:
        self._value, self._read_at, self._reading_since = value, self._reactor.seconds(), None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)


class _Times(NamedTuple):
    """What the processors did until *at*, in seconds."""

    at: float
    busy: float
    all: float


class CpuGauge:
    """The processors' share in use since the last look, or the one before where that was a moment ago."""

    def __init__(self, clock: Callable[[], float], times: Callable[[], Any] = psutil.cpu_times) -> None:
        self._clock = clock
        self._times = times
        self._before = self._last = self._look()

    def read(self) -> float:
        """Return the share in percent. Raises what psutil raises."""
        found = self._look()
        if found.at - self._last.at >= WINDOW_S:
            self._before, self._last = self._last, found
        passed = found.all - self._before.all
        return percent(100 * (found.busy - self._before.busy) / passed) if passed > 0 else 0.0

    def _look(self) -> _Times:
        times = self._times()._asdict()
        # Linux counts a guest's time as the user's already.
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        return _Times(self._clock(), total - times["idle"] - times.get("iowait", 0.0), total)


class Gauges:
    """All of them. *jobs* says how many run; *user_home* is where commands run."""

    def __init__(self, reactor: Any, user_home: Path, jobs: Callable[[], int]) -> None:
        self._log = Logger()
        self._jobs = jobs
        self._cpu: CpuGauge | None = None
        try:
            self._cpu = CpuGauge(boot_clock)
        except Exception as error:  # see SlowGauge
            self._log.warn("no vitals are told: the processors' times can't be read: {reason}", reason=str(error))
        self._root = SlowGauge(reactor, lambda: percent(psutil.disk_usage(user_home.anchor or "/").percent))
        self._home = SlowGauge(reactor, lambda: percent(psutil.disk_usage(os.fspath(user_home)).percent))
        self._battery = SlowGauge(reactor, on_battery)

    async def measure(self) -> Vitals | None:
        """Return the machine's vitals, after at most PATIENCE_S; None where it doesn't tell."""
        if self._cpu is None:
            return None
        await DeferredList([gauge.refresh() for gauge in (self._root, self._home, self._battery)])
        try:
            cpu, memory = self._cpu.read(), percent(psutil.virtual_memory().percent)
        except Exception:  # see SlowGauge
            return None
        return Vitals(
            cpu=cpu,
            memory=memory,
            disk_root=self._root.value,
            disk_home=self._home.value,
            jobs=self._jobs(),
            uptime_s=round(boot_clock()),
            load=load(),
            on_battery=self._battery.value,
        )


def percent(value: float) -> float:
    """Return *value* as a share in percent, whatever the system made of it."""
    return round(min(max(value, 0.0), 100.0), 1)


def load() -> tuple[float, float, float] | None:
    """Return the load over one, five and fifteen minutes, where the system has such a thing."""
    try:
        one, five, fifteen = os.getloadavg()
    except (AttributeError, OSError):
        return None
    return round(max(0.0, one), 2), round(max(0.0, five), 2), round(max(0.0, fifteen), 2)


def on_battery() -> bool | None:
    """Whether the machine runs from its battery; None where it has none, or doesn't say."""
    look = getattr(psutil, "sensors_battery", None)  # not every system's psutil has it
    found = look() if look is not None else None
    return None if found is None or found.power_plugged is None else not found.power_plugged


def _enough(failure: Failure) -> None:
    failure.trap(WaitedEnough)
