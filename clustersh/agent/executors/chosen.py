"""Asking an executor: whatever a plugin does wrong keeps its own job from starting, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..fetch import InThread
from ..tree import Tree
from . import ExecutorError, IElsewhere, IExecutor, Task

PREPARE_S = END_S = 30.0
"""Seconds that an executor may take elsewhere."""
MAX_WHY = 300
"""Characters of a plugin's words that users see."""


class Chosen:
    """The executor of this machine. *elsewhere* says whether its commands run where the agent doesn't see them."""

    _log = Logger()

    def __init__(self, reactor: Any, in_thread: InThread, executor: IExecutor) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._executor: Any = executor
        self.elsewhere: bool = IElsewhere.providedBy(executor)

    async def argv(self, task: Task) -> list[bytes]:
        """Return the argument vector for *task*. Raises ExecutorError."""
        try:
            if self.elsewhere:
                await maybeDeferred(self._executor.prepare, task).addTimeout(PREPARE_S, self._reactor)
            argv = await self._written(task) if self._executor.writes(task) else self._executor.argv(task)
        except ExecutorError:
            raise
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its own affair
            self._log.failure("the executor {name} failed", name=self._executor.name)
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if not isinstance(argv, list) or not argv or not all(isinstance(word, bytes) for word in argv):
            self._log.error("the executor {name} answered {what!r:.300}", name=self._executor.name, what=argv)
            raise self._failed("it answered something other than a list of words (bytes)")
        return argv

    async def end(self, uuid: str) -> None:
        """End what runs elsewhere of the job *uuid*, as far as the executor can."""
        ending = maybeDeferred(self._executor.end, uuid).addTimeout(END_S, self._reactor)
        await ending.addErrback(self._not_ended, uuid)

    async def _written(self, task: Task) -> Any:
        try:
            return await self._in_thread(self._executor.argv, task)
        except OSError as error:
            raise ExecutorError(f"its command can't be written to a file: {error.strerror}") from error

    def _failed(self, why: str) -> ExecutorError:
        return ExecutorError(f"the executor {self._executor.name!r} failed: {why}"[:MAX_WHY])

    def _not_ended(self, failure: Failure, uuid: str) -> None:
        self._log.error(
            "the executor {name} could not end the job {uuid}: {why}",
            name=self._executor.name,
            uuid=uuid,
            why=f"{failure.type.__name__ if failure.type else ''}: {failure.getErrorMessage()}"[:MAX_WHY],
        )


class Ender(Protocol):
    """Ends what a job has started."""

    async def end(self, tree: Tree) -> bool:
        """End all of *tree*; False where something lives on."""


class Everywhere(NamedTuple):
    """Ends the jobs of an *executor* that runs them elsewhere: there, and then what carries them *here*."""

    executor: Chosen
    here: Ender

    async def end(self, tree: Tree) -> bool:
        """End all of *tree*."""
        await self.executor.end(tree.uuid)
        return await self.here.end(tree)
