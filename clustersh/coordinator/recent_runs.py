"""The runs that ended last, for those who ask again; bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .open_runs import OpenRun

JOB_WEIGHT = 1 << 10
"""Bytes that a job takes in memory, without what it printed."""


class RecentRuns:
    """Keeps the newest, at least one: what that may take is bounded already."""

    def __init__(self, max_runs: int = 1024, max_bytes: int = 32 << 20) -> None:
        self._runs: OrderedDict[str, OpenRun] = OrderedDict()
        self._max_runs = max_runs
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, run: OpenRun) -> None:
        """Keep *run*, dropping the oldest."""
        self._runs[run.uuid] = run
        self._bytes += _weight(run)
        while len(self._runs) > 1 and (len(self._runs) > self._max_runs or self._bytes > self._max_bytes):
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= _weight(oldest)

    def get(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is still here."""
        return self._runs.get(uuid)


def _weight(run: OpenRun) -> int:
    return run.heads.bytes + len(run.command) + JOB_WEIGHT * len(run.jobs)
