"""How the agent's own machine is reached: without a way in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..wire.link import Facts
from .executors.chosen import Ender
from .fetch import BlobFetcher, InThread
from .gauges import Gauges
from .launch import Launcher
from .reached import Reached
from .workspace import Workspaces


class LocalReach(NamedTuple):
    """This machine, where commands run in *user_home* unless told otherwise."""

    facts: Facts
    launcher: Launcher
    ender: Ender
    user_home: Path
    in_thread: InThread
    reached: Reached = Reached()

    def workspaces(self, folder: Path, fetcher: BlobFetcher) -> Workspaces:
        """Return what makes workspaces in *folder*."""
        elsewhere = self.launcher.executor.elsewhere
        return Workspaces(folder, self.user_home, fetcher, self.in_thread, elsewhere=elsewhere)

    def gauges(self, jobs: Callable[[], int]) -> Gauges:
        """Return what tells how the machine does; *jobs* says how many run."""
        return Gauges(self.launcher.reactor, self.user_home, jobs)

    def close(self) -> None:
        """Nothing is kept."""
