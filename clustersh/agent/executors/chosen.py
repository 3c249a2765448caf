"""Asking an executor: whatever a plugin does wrong keeps its own job from starting, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..fetch import InThread
from ..tree import Tree
from . import ExecutorError, IElsewhere, IExecutor, ISpeaking, Task

T = TypeVar("T")
ELSEWHERE_S = 30.0
"""Seconds that an executor may take for what it does elsewhere, each time."""
WRITE_S = 120.0
"""Seconds that it may take for files: a disk may be slow."""
MAX_LATE = 16
"""Commands for which it has not answered in that time, before it is asked no more: each holds a thread."""
MAX_WHY = 300
"""Characters of a plugin's words that users see."""


class TooLongError(Exception):
    """An executor has not answered in its time."""


class Chosen:
    """The executor of a machine. *elsewhere* says whether its commands run where the agent doesn't see them.

    *patience* is for what it does there (seconds); None: it has bounds of its own.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, in_thread: InThread, executor: IExecutor, patience: float | None = ELSEWHERE_S
    ) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._executor: Any = executor
        self._name = executor.name
        self._patience = patience
        self._numbers = itertools.count()
        self._asked: set[int] = set()
        """What it is asked in threads, as yet without an answer."""
        self._late: set[int] = set()
        """Those of which nobody waits for one any more."""
        self.elsewhere: bool = IElsewhere.providedBy(executor)
        self._speaks: bool = ISpeaking.providedBy(executor)

    async def argv(self, task: Task) -> list[bytes]:
        """Return the argument vector for *task*. Raises ExecutorError."""
        with self.blamed():
            if self.elsewhere:
                await self.in_time(self._executor.prepare, task)
            argv = await self._written(task) if self._executor.writes(task) else self._executor.argv(task)
        if not isinstance(argv, list) or not argv or not all(isinstance(word, bytes) for word in argv):
            self._log.error("the executor {name} answered {what!r:.300}", name=self._name, what=argv)
            raise self._failed("it answered something other than a list of words (bytes)")
        return argv

    def conversation(self, task: Task) -> Any:
        """Return what speaks with the process of *task* (IConversation), None if nothing does. Raises ExecutorError."""
        if not self._speaks:
            return None
        with self.blamed():
            found = self._executor.conversation(task)
            if not isinstance(found.first, bytes):
                raise TypeError("what it says first is no bytes")
            return found

    async def end(self, tree: Tree) -> bool:
        """End what runs elsewhere of the job; False where the executor could not."""
        ending = self.in_time(self._executor.end, tree.uuid)
        ended: bool = await ending.addCallbacks(lambda _: True, self._not_ended, errbackArgs=(tree.uuid,))
        return ended

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Whatever is raised within is the executor's fault, and raised as an ExecutorError that says so."""
        try:
            yield
        except ExecutorError as error:
            raise ExecutorError(str(error) or f"the executor {self._name!r} refused, and said nothing") from error
        except TooLongError as error:
            raise self._failed(str(error)) from error
        except (Exception, SystemExit) as error:
            self._log.failure("the executor {name} failed", name=self._name)
            raise self._failed(f"{type(error).__name__}: {error}") from error

    def in_time(self, function: Callable[..., Any], *words: Any) -> Deferred[Any]:
        """Return what comes of *function*, done elsewhere by the executor; TooLongError where that takes too long."""
        asked = maybeDeferred(function, *words)
        return asked if self._patience is None else self._within(self._patience, asked)

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

    def _not_ended(self, failure: Failure, uuid: str) -> bool:
        self._log.error(
            "the executor {name} could not end the job {uuid}: {why}",
            name=self._name,
            uuid=uuid,
            why=f"{failure.type.__name__ if failure.type else ''}: {failure.getErrorMessage()}"[:MAX_WHY],
        )
        return False


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
        await self.executor.end(tree)
        return await self.here.end(tree)
