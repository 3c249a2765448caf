"""With CI=true a skipped test fails the run, unless docs/platforms.md lists it; long files are begun first, and every
test ends in bounded time."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# How long an example takes says how busy the machine is. (With CI set, hypothesis has a profile that knows this.)
hypothesis.settings.register_profile("patient", deadline=None)
if not os.environ.get("CI"):
    hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
LONG_FILES = (
    "tests/installing/test_failures.py",
    "tests/real/test_ssh_machines.py",
    "tests/installing/test_joining.py",
    "tests/test_benchmarks.py",
    "tests/faults/test_clocks.py",
    "tests/hostile/test_floods.py",
    "tests/real/test_standby_connection.py",
    "tests/real/test_standby.py",
    "tests/real/test_installers.py",
    "tests/real/test_targets.py",
    "tests/faults/test_links.py",
    "tests/faults/test_lost_state.py",
    "tests/real/test_main_job.py",
    "tests/rest/test_schema.py",
    "tests/real/test_policy.py",
    "tests/real/test_enrollment.py",
    "tests/coordinator/guard/test_guard.py",
    "tests/hostile/test_pairing_attacks.py",
    "tests/faults/soak/test_soak.py",
    "tests/services/test_debian.py",
    "tests/real/test_faults.py",
    "tests/real/test_dry_run.py",
    "tests/real/test_standby_callers.py",
    "tests/faults/test_full_disk.py",
    "tests/real/test_agent_load.py",
    "tests/hostile/test_fuzz.py",
    "tests/frontend/test_up.py",
    "tests/hostile/test_frames.py",
    "tests/real/test_many_machines.py",
    "tests/real/test_completions.py",
    "tests/real/test_standby_safety.py",
    "tests/real/test_check.py",
    "tests/real/test_pacing.py",
    "tests/real/test_executors.py",
    "tests/real/test_quick_cat.py",
    "tests/real/test_standby_both.py",
    "tests/services/test_pidfile.py",
    "tests/test_wheel.py",
    "tests/real/test_health.py",
    "tests/real/test_standby_streams.py",
    "tests/hostile/test_requests.py",
    "tests/faults/test_killed_services.py",
    "tests/faults/test_killed_enrollment.py",
    "tests/real/test_placement.py",
    "tests/faults/test_ledger_damage.py",
    "tests/faults/test_store_damage.py",
    "tests/faults/test_io_errors.py",
    "tests/real/test_coordinator.py",
    "tests/real/test_tailnet.py",
    "tests/real/test_guard_worker.py",
    "tests/agent/test_job_machine.py",
    "tests/hostile/test_permissions.py",
    "tests/hostile/test_access.py",
    "tests/hostile/test_terminal.py",
    "tests/coordinator/test_run_machine.py",
    "tests/real/test_quick.py",
)
"""The files that take longest, ten seconds or more on two quiet cores, longest first. They are begun in this order:
the workers that have nothing left to do would wait for a long one that is begun last."""
REAL_FOLDERS = ("tests/real/", "tests/rest/", "tests/faults/", "tests/hostile/", "tests/installing/")
"""All tests there start real programs, but those of NOT_REAL; elsewhere those that do are marked."""
NOT_REAL = "tests/hostile/test_fuzz.py"
_LISTED = re.compile(r"^\| `(tests/[^`]+)` \| ([a-z0-9]+) \| .+ \|$", re.MULTILINE)
_skipped: set[str] = set()
_TIME_IS_UP = pytest.StashKey[Any]()
"""The call that ends a test when its time is up."""


def allowed_skips(page: str, platform: str) -> set[str]:
    """Return the tests (or whole files) that *page* lists as skipped on *platform*."""
    return {test for test, where in _LISTED.findall(page) if where in (platform, "any")}


def unlisted(skipped: set[str], allowed: set[str]) -> list[str]:
    """Return those of *skipped* that neither stand in *allowed* themselves nor have their file there."""
    return sorted(test for test in skipped if not {test, test.split("[")[0], test.split("::")[0]} & allowed)


def pytest_configure() -> None:
    """Take hang-ups as usual, under nohup too: programs that tests start inherit what is ignored.

    Nor is a standby left behind by commands that a test doesn't start for that.
    """
    os.environ.setdefault("CLUSTERSH_STANDBY", "off")
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the real ones, and begin with the files that take longest; otherwise they stay in their order."""
    for item in items:
        if item.nodeid.startswith(REAL_FOLDERS) and not item.nodeid.startswith(NOT_REAL):
            item.add_marker(pytest.mark.real)
    rank = {file: number for number, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


def pytest_collection_finish() -> None:
    """Look for no garbage among all the tests, again and again, while they run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """Leave the umask as it was: services set theirs, in tests within this process too."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Iterator[None]:
    """End a test that waits in a coroutine too: the reactor only logs what the timeout's signal raises in it."""
    import greenlet
    from twisted.internet import reactor

    test = greenlet.getcurrent()
    why = f"waited in a coroutine for {settings.timeout:g} s"
    item.stash[_TIME_IS_UP] = reactor.callLater(settings.timeout, lambda: test.throw(pytest.fail.Exception(why)))
    return (yield)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item | pytest.Collector) -> Iterator[None]:
    call = item.stash.get(_TIME_IS_UP, None)
    if call is not None and call.active():
        call.cancel()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.add(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _missing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test in _missing():
        terminalreporter.write_line(f"SKIPPED although docs/platforms.md does not list it: {test}", red=True)


def _missing() -> list[str]:
    if os.environ.get("CI") != "true":
        return []
    page = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    return unlisted(_skipped, allowed_skips(page, sys.platform))
