"""Asking an executor: whatever a plugin does wrong keeps its own job from starting, and nothing else."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..fetch import InThread
from ..tree import Tree
from . import ExecutorError, IElsewhere, IExecutor, Task

T = TypeVar("T")
PREPARE_S = END_S = 30.0
"""Seconds that an executor may take elsewhere."""
WRITE_S = 120.0
"""Seconds that it may take for files: a disk may be slow."""
MAX_LATE = 16
"""Commands for which it has not answered in that time, before it is asked no more: each holds a thread."""
MAX_WHY = 300
"""Characters of a plugin's words that users see."""


class TooLongError(Exception):
    """An executor has not answered in its time."""


class Chosen:
    """The executor of this machine. *elsewhere* says whether its commands run where the agent doesn't see them."""

    _log = Logger()

    def __init__(self, reactor: Any, in_thread: InThread, executor: IExecutor) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._executor: Any = executor
        self._name = executor.name
        self._numbers = itertools.count()
        self._asked: set[int] = set()
        """What it is asked in threads, as yet without an answer."""
        self._late: set[int] = set()
        """Those of which nobody waits for one any more."""
        self.elsewhere: bool = IElsewhere.providedBy(executor)

    async def argv(self, task: Task) -> list[bytes]:
        """Return the argument vector for *task*. Raises ExecutorError."""
        try:
            if self.elsewhere:
                await self._within(PREPARE_S, maybeDeferred(self._executor.prepare, task))
            argv = await self._written(task) if self._executor.writes(task) else self._executor.argv(task)
        except ExecutorError as error:
            raise ExecutorError(str(error) or f"the executor {self._name!r} refused, and said nothing") from error
        except TooLongError as error:
            raise self._failed(str(error)) from error
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its own affair
            self._log.failure("the executor {name} failed", name=self._name)
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if not isinstance(argv, list) or not argv or not all(isinstance(word, bytes) for word in argv):
            self._log.error("the executor {name} answered {what!r:.300}", name=self._name, what=argv)
            raise self._failed("it answered something other than a list of words (bytes)")
        return argv

    async def end(self, uuid: str) -> None:
        """End what runs elsewhere of the job *uuid*, as far as the executor can."""
        ending = self._within(END_S, maybeDeferred(self._executor.end, uuid))
        await ending.addErrback(self._not_ended, uuid)

    async def _written(self, task: Task) -> Any:
        self._late &= self._asked
        if len(self._late) >= MAX_LATE:
            raise ExecutorError(f"the executor {self._name!r} hangs: it still has not answered for {MAX_LATE} commands")
        number = next(self._numbers)
        self._asked.add(number)
        try:
            return await self._within(WRITE_S, self._in_thread(self._ask, task, number))
        except OSError as error:
            raise ExecutorError(f"its command can't be written to a file: {error.strerror or error}") from error
        except TooLongError:
            self._late.add(number)
            raise

    def _ask(self, task: Task, number: int) -> Any:
        try:
            return self._executor.argv(task)
        finally:
            self._asked.discard(number)

    def _within(self, seconds: float, asked: Deferred[T]) -> Deferred[T]:
        """Return what comes of *asked*, which is given up after *seconds*, whether it can be cancelled or not."""
        first: Deferred[T] = Deferred(lambda _: asked.cancel())
        asked.addBoth(lambda result: None if first.called else first.callback(result))

        def give_up(*_: object) -> T:
            raise TooLongError(f"it took over {seconds:g} seconds")

        return first.addTimeout(seconds, self._reactor, give_up)

    def _failed(self, why: str) -> ExecutorError:
        return ExecutorError(f"the executor {self._name!r} failed: {why}"[:MAX_WHY])

    def _not_ended(self, failure: Failure, uuid: str) -> None:
        self._log.error(
            "the executor {name} could not end the job {uuid}: {why}",
            name=self._name,
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
