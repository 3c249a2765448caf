"""How a job's process comes to be: by its machine's executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..wire.link import Start
from .executors import Task
from .executors.chosen import Chosen
from .executors.session import Session, close
from .process import ProcessListener, spawn


class Launcher(NamedTuple):
    """Makes launches. *environment* makes the environment of what is started here out of a job's Start."""

    reactor: Any
    executor: Chosen
    environment: Callable[[Start], Mapping[bytes, bytes]]

    async def ready(self, start: Start, task: Task) -> Launch:
        """Have the executor prepare, and write, what *task* needs. Raises ExecutorError."""
        argv = await self.executor.argv(task)
        return Launch(self, start, argv, self.executor.conversation(task))


class Launch(NamedTuple):
    """A process about to be: exactly one of the two is called, once."""

    launcher: Launcher
    start: Start
    argv: list[bytes]
    conversation: Any

    def spawn(self, listener: ProcessListener) -> None:
        """Start it. Raises SpawnError."""
        reactor, executor, environment = self.launcher
        stdin = self.start.stdin
        if self.conversation is not None:
            listener, stdin = Session(executor, self.conversation, listener, stdin=stdin), True
        try:
            spawn(reactor, listener, self.argv, environment(self.start), stdin=stdin)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """It is not wanted any more."""
        if self.conversation is not None:
            close(self.launcher.executor, self.conversation)
