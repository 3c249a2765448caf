"""What is read of this machine, and that nothing of it can hold up or end the agent."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from clustersh.agent import gauges
from clustersh.agent.gauges import PATIENCE_S, STALE_S, CpuGauge, Gauges, SlowGauge, load, on_battery, percent
from clustersh.clocks import boot_clock

Times = namedtuple("Times", "user system idle iowait guest guest_nice")
ensure = pytest_twisted.ensureDeferred


class Turns(Clock):
    """A reactor's time, and what threads handed to it; `turn` does that."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.came = threading.Semaphore(0)

    def callFromThread(self, function: Callable[..., None], *words: Any) -> None:
        self.handed.append((function, words))
        self.came.release()

    def turn(self) -> None:
        assert self.came.acquire(timeout=30)
        function, words = self.handed.pop(0)
        function(*words)


class Mount:
    """A file system whose readings wait until they are let through."""

    def __init__(self, hangs: bool = True) -> None:
        self.readings: list[threading.Event] = []
        self.asked = threading.Semaphore(0)
        self.figure: float | None = 0.0
        self.hangs = hangs

    def read(self) -> float | None:
        let_through = threading.Event()
        self.readings.append(let_through)
        self.asked.release()
        if self.hangs:
            assert let_through.wait(30)
        return self.figure


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_a_figure_is_read_in_a_thread_that_nobody_waits_for(turns: Turns) -> None:
    threads: list[threading.Thread] = []
    gauge = SlowGauge(turns, lambda: threads.append(threading.current_thread()) or 12.5)
    done = gauge.refresh()
    assert not done.called and gauge.value is None
    turns.turn()
    assert done.called and gauge.value == 12.5
    assert threads[0] is not threading.main_thread() and threads[0].daemon
    assert turns.getDelayedCalls() == []


def test_what_hangs_is_read_once_and_its_last_reading_stands_until_it_is_stale(turns: Turns) -> None:
    mount = Mount(hangs=False)
    mount.figure = 40.0
    gauge = SlowGauge(turns, mount.read)
    gauge.refresh()
    turns.turn()
    mount.hangs, mount.figure = True, 50.0
    waiting = [gauge.refresh(), gauge.refresh()]
    turns.advance(PATIENCE_S - 0.01)
    assert not any(done.called for done in waiting)
    turns.advance(0.01)
    assert all(done.called for done in waiting)
    assert gauge.refresh().called, "nobody waits again for what hangs"
    assert gauge.value == 40.0
    turns.advance(STALE_S)
    assert gauge.value is None
    assert len(mount.readings) == 2, "a second thread was started beside the one that hangs"
    mount.readings[1].set()
    turns.turn()
    assert gauge.value == 50.0
    assert not gauge.refresh().called, "it is read anew once the reading that hung is over"
    assert mount.asked.acquire(timeout=30) and mount.asked.acquire(timeout=30) and mount.asked.acquire(timeout=30)
    mount.readings[2].set()
    turns.turn()


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), NotImplementedError(), KeyError("odd"), psutil.Error()])
def test_what_can_not_be_read_is_left_out(turns: Turns, error: Exception) -> None:
    def read() -> float:
        raise error

    gauge = SlowGauge(turns, read)
    done = gauge.refresh()
    turns.turn()
    assert done.called and gauge.value is None


def test_without_room_for_a_thread_the_figure_is_left_out(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    gauge = SlowGauge(turns, lambda: 1.0)
    assert gauge.refresh().called and gauge.value is None
    monkeypatch.undo()
    done = gauge.refresh()
    turns.turn()
    assert done.called and gauge.value == 1.0


class Processors:
    """Says what they did so far, of two of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.busy = self.idle = self.iowait = self.guest = 0.0

    def go(self, seconds: float, busy: float, guest: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.busy += busy
        self.guest += guest
        self.idle += 2 * seconds - busy
        self.iowait += 0.5
        self.idle -= 0.5

    def times(self) -> Times:
        return Times(self.busy - 1.0, 1.0, self.idle, self.iowait, self.guest, 0.0)


def test_the_processors_share_is_since_the_last_look_but_never_over_a_moment() -> None:
    processors = Processors()
    gauge = CpuGauge(processors.clock.seconds, processors.times)
    processors.go(30.0, busy=15.0, guest=9.0)
    assert gauge.read() == 25.0
    processors.go(30.0, busy=60.0)
    assert gauge.read() == 100.0
    processors.go(0.5, busy=0.0)
    assert gauge.read() == pytest.approx(100 * 60 / 61, abs=0.1), "half a second says little: what was before counts"
    processors.go(10.0, busy=5.0)
    assert gauge.read() == pytest.approx(100 * 5 / 21, abs=0.1)


def test_processors_whose_times_went_back_are_idle() -> None:
    processors = Processors()
    processors.go(30.0, busy=15.0)
    gauge = CpuGauge(processors.clock.seconds, processors.times)
    processors.busy -= 10.0
    processors.clock.advance(30.0)
    assert gauge.read() == 0.0
    processors.go(30.0, busy=-20.0)
    assert gauge.read() == 0.0


def test_shares_are_shares() -> None:
    assert [percent(each) for each in (-3.0, 0.04, 12.345, 100.2)] == [0.0, 0.0, 12.3, 100.0]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, None),
        (SimpleNamespace(power_plugged=True), False),
        (SimpleNamespace(power_plugged=False), True),
        (SimpleNamespace(power_plugged=None), None),
    ],
)
def test_the_battery(monkeypatch: pytest.MonkeyPatch, found: Any, told: bool | None) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    assert on_battery() is told


def test_systems_without_a_battery_or_a_load_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert (on_battery(), load()) == (None, None)


@ensure
async def test_this_machine(tmp_path: Path) -> None:
    vitals = await Gauges(reactor, tmp_path, lambda: 3).measure()
    assert vitals is not None
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.fspath(tmp_path))
    assert vitals.memory == pytest.approx(memory.percent, abs=20)
    assert vitals.disk_home == pytest.approx(disk.percent, abs=5)
    assert vitals.disk_root == pytest.approx(psutil.disk_usage("/").percent, abs=5)
    assert 0 <= vitals.cpu <= 100
    assert vitals.jobs == 3
    assert vitals.uptime_s == pytest.approx(boot_clock(), abs=60)
    assert vitals.load is not None and vitals.load == pytest.approx(os.getloadavg(), abs=5)


@ensure
async def test_a_home_that_hangs_holds_up_nothing_and_only_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, hangs = psutil.disk_usage, threading.Event()

    def disk_usage(path: str) -> Any:
        if path == os.fspath(tmp_path):
            assert hangs.wait(30)
        return real(path)

    monkeypatch.setattr(psutil, "disk_usage", disk_usage)
    monkeypatch.setattr(gauges, "PATIENCE_S", 0.05)
    found = Gauges(reactor, tmp_path, lambda: 0)
    for _ in range(3):
        vitals = await found.measure()
        assert vitals is not None
        assert (vitals.disk_home, vitals.disk_root is None) == (None, False)
    left = [thread for thread in threading.enumerate() if thread.name == "gauge"]
    for thread in left:
        thread.join(1)  # those that have answered may not have ended yet
    assert sum(thread.is_alive() for thread in left) == 1
    hangs.set()


@pytest.mark.parametrize("broken", ["cpu_times", "virtual_memory"])
@ensure
async def test_without_its_main_figures_a_machine_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    def fail() -> Any:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, broken, fail)
    monkeypatch.setattr(CpuGauge.__init__, "__defaults__", (psutil.cpu_times,))
    assert await Gauges(reactor, tmp_path, lambda: 0).measure() is None
