"""With CI=true a skipped test fails the run, unless docs/platforms.md lists it for this platform."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is. (With CI set, hypothesis has a profile that knows this.)
hypothesis.settings.register_profile("patient", deadline=None)
if not os.environ.get("CI"):
    hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
_LISTED = re.compile(r"^\| `(tests/[^`]+)` \| ([a-z0-9]+) \| .+ \|$", re.MULTILINE)
_skipped: set[str] = set()


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


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """Leave the umask as it was: services set theirs, in tests within this process too."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


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
