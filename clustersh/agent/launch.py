"""How a job's process comes to be: by this machine's executor, or by whatever else a machine is reached by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..wire.link import Start
from .executors import Task
from .executors.chosen import Chosen
from .process import ProcessListener, spawn


class Launch(Protocol):
    """A process about to be: exactly one of the two is called, once."""

    def spawn(self, listener: ProcessListener) -> None:
        """Start it. Raises SpawnError."""

    def abandon(self) -> None:
        """It is not wanted any more."""


class Launcher(Protocol):
    """Makes launches."""

    async def ready(self, start: Start, task: Task) -> Launch:
        """Have all that *task* needs. Raises ExecutorError."""


class LocalLauncher(NamedTuple):
    """Runs jobs on this machine. *environment* makes a job's environment out of its Start."""

    reactor: Any
    executor: Chosen
    environment: Callable[[Start], dict[bytes, bytes]]

    async def ready(self, start: Start, task: Task) -> Launch:
        """Have the executor prepare, and write, what it needs."""
        return _LocalLaunch(self, start, await self.executor.argv(task))


class _LocalLaunch(NamedTuple):
    launcher: LocalLauncher
    start: Start
    argv: list[bytes]

    def spawn(self, listener: ProcessListener) -> None:
        environment = self.launcher.environment(self.start)
        spawn(self.launcher.reactor, listener, self.argv, environment, stdin=self.start.stdin)

    def abandon(self) -> None:
        """Nothing is held."""
