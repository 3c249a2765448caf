"""How a job's process comes to be: by this machine's executor, or by whatever else a machine is reached by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..wire.link import Start
from .executors import ExecutorError, IExecutor, Task
from .fetch import InThread
from .process import ProcessListener, spawn
from .tree import Tree


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


class Ender(Protocol):
    """Ends what a job has started."""

    async def end(self, tree: Tree) -> bool:
        """End all of *tree*; False where something lives on."""


class LocalLauncher(NamedTuple):
    """Runs jobs on this machine. *environment* makes a job's environment out of its Start."""

    reactor: Any
    in_thread: InThread
    executor: IExecutor
    environment: Callable[[Start], dict[bytes, bytes]]

    async def ready(self, start: Start, task: Task) -> Launch:
        """Have the executor write what it needs."""
        try:
            if self.executor.writes(task):
                argv: list[bytes] = await self.in_thread(self.executor.argv, task)
            else:
                argv = self.executor.argv(task)
        except OSError as error:
            raise ExecutorError(f"its command can't be written to a file: {error.strerror}") from error
        return _LocalLaunch(self, start, argv)


class _LocalLaunch(NamedTuple):
    launcher: LocalLauncher
    start: Start
    argv: list[bytes]

    def spawn(self, listener: ProcessListener) -> None:
        environment = self.launcher.environment(self.start)
        spawn(self.launcher.reactor, listener, self.argv, environment, stdin=self.start.stdin)

    def abandon(self) -> None:
        """Nothing is held."""
