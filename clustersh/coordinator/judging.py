"""Has the guard's worker judge commands: one at a time, in bounded time and memory, whatever becomes of the worker.

A worker that dies, hangs or can't be started is given up and another one takes its place. A command that has no answer
so counts as one that can't be parsed; those that wait meanwhile are asked of the next worker. Clients take turns: what
takes long holds up the others of its own client.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ..wire.jobs import Command
from ..wire.problems import Kind, ProblemError
from .fair_queue import FairLock, FairQueue
from .guard import RULES, Finding, Guard
from .guard.verdicts import MAX_WHERE
from .guard_worker import MAX_QUESTION, Question, framed
from .judging_process import Worker
from .recent_answers import RecentAnswers
from .shares import Shares

LIMIT_S = 3.0
"""Seconds that a command may take the worker; it bounds itself tighter, but for what C code does."""
WAIT_S = 15.0
"""Seconds that a command may wait for its turn, a new worker's start included."""
MAX_WAITING, MAX_WAITING_BYTES = 1000, 64 << 20
"""Commands that may be here at once, and their bytes; one client may have half of either."""
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Seconds between attempts to start a worker; each takes twice as long as the one before."""
MOST_DEATHS = 6
"""Workers in a row that die without an answer, before the next one waits."""
QUIET_S = 60.0
"""Seconds in which what goes wrong with workers is logged once."""
LARGE = 1 << 10
"""Bytes of a command that are looked through in a thread, where no worker has an answer."""
_BEGIN = "import sys; sys.path[:] = sys.argv[1:]; from clustersh.coordinator.guard_worker import main; main()"
_PLACES = (*filter(os.path.isabs, sys.path), str(Path(__file__).parents[2]))
"""Where this coordinator's own modules are: an isolated Python looks neither into a user's site nor PYTHONPATH."""
PROGRAM = (sys.executable, "-I", "-c", _BEGIN, *_PLACES)


class _NoAnswer(Exception):
    """Nobody could judge it."""


class _Waiting:
    """A question of *client* on its way."""

    def __init__(self, client: str, frame: bytes, cancel: Callable[[_Waiting], None]) -> None:
        self.client = client
        self.frame = frame
        self.answer: Deferred[bytes] = Deferred(lambda _: cancel(self))
        self.tries = 0
        self.limit: IDelayedCall | None = None

    def end(self, what: bytes | Exception) -> None:
        """Hand over the answer, or why there is none."""
        if self.limit is not None and self.limit.active():
            self.limit.cancel()
        if not self.answer.called:
            self.answer.callback(what) if isinstance(what, bytes) else self.answer.errback(what)


class Judging:
    """Judges as `Guard.judge` does, in another process. *in_thread* runs something there."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        program: tuple[str, ...] = PROGRAM,
        in_thread: Callable[..., Awaitable[Any]] = deferToThread,
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._in_thread = in_thread
        self._guard = Guard()
        self._recent: RecentAnswers[tuple[Finding, ...]] = RecentAnswers()
        self._worker: Worker | None = None
        self._asked: _Waiting | None = None
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._looking = FairLock()
        self._shares = Shares()
        self._pause = PAUSE_S
        self._deaths = 0
        self._again: IDelayedCall | None = None
        self._running = False
        self._quiet_until = float("-inf")

    def start(self) -> None:
        """Start the worker; nobody waits for that."""
        self._running = True
        self._begin()

    async def stop(self) -> None:
        """End the worker."""
        self._running = False
        if self._again is not None and self._again.active():
            self._again.cancel()
        worker, self._worker = self._worker, None
        self._give_up_all()
        if worker is not None:
            worker.kill("the coordinator stops")
            await worker.gone

    async def judge(
        self,
        command: Command,
        script: bytes | None,
        platform: str,
        folder: str = "",
        executor: str = "",
        *,
        client: str = "",
    ) -> tuple[Finding, ...]:
        """Return what `Guard.judge` does, for *client*. Raises ProblemError (rate-limited): too many wait."""
        size = _size(command, script)
        self._check_room(client, size)
        self._shares.take(client, size)
        try:
            return await self._answer(client, Question(command, script, platform, folder, executor))
        except _NoAnswer:
            return await self._suspect(client, command, script, platform, executor)
        finally:
            self._shares.give_back(client, size)

    def _check_room(self, client: str, size: int) -> None:
        for there, part in ((self._shares.all, 1), (self._shares.of(client), 2)):
            if there.things >= MAX_WAITING // part or there.size + size > MAX_WAITING_BYTES // part:
                raise _busy()

    async def _suspect(
        self, client: str, command: Command, script: bytes | None, platform: str, executor: str
    ) -> tuple[Finding, ...]:
        """Look through what nobody could parse; long ones one at a time."""
        if _size(command, script) <= LARGE:
            return self._guard.suspect(command, script, platform, executor)
        await self._looking.take(client)
        try:
            asked = (command, script, platform, executor)
            found: tuple[Finding, ...] = await self._in_thread(self._guard.suspect, *asked)
            return found
        finally:
            self._looking.let_go()

    async def _answer(self, client: str, question: Question) -> tuple[Finding, ...]:
        content = msgspec.msgpack.encode(question)
        known = self._recent.find(content)
        if known is not None:
            return known
        if len(content) > MAX_QUESTION or self._worker is None:
            raise _NoAnswer
        waiting = _Waiting(client, framed(content), self._forget)
        self._queue.put(client, waiting)
        waiting.limit = self._reactor.callLater(WAIT_S, self._too_late, waiting)
        self._next()
        answer = await waiting.answer
        try:
            found = _findings(answer)
        except (msgspec.DecodeError, ValueError) as error:
            if self._worker is not None:
                self._worker.kill("it answers nonsense")
            raise _NoAnswer from error
        self._recent.add(content, found)
        return found

    # -- those that wait

    def _forget(self, waiting: _Waiting) -> None:
        """Nobody waits for it any more, or not for its turn."""
        self._queue.remove(waiting)
        if waiting.limit is not None and waiting is not self._asked and waiting.limit.active():
            waiting.limit.cancel()

    def _too_late(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.end(_busy())

    def _next(self) -> None:
        """Ask the next question, where one waits and the worker is free."""
        if self._worker is None or not self._worker.ready or self._asked is not None:
            return
        asked = self._asked = self._queue.take()
        if asked is None:
            return
        if asked.limit is not None and asked.limit.active():
            asked.limit.cancel()
        asked.limit = self._reactor.callLater(LIMIT_S, self._give_up, asked)
        asked.tries += 1
        self._worker.ask(asked.frame)

    def _give_up(self, asked: _Waiting) -> None:
        """The worker hangs."""
        self._asked = None
        if self._worker is not None:
            self._worker.kill(f"a command took it more than {LIMIT_S:g} s")
        asked.end(_NoAnswer())

    def _give_up_all(self) -> None:
        asked, self._asked = self._asked, None
        everyone = [asked] if asked is not None else []
        while (waiting := self._queue.take()) is not None:
            everyone.append(waiting)
        for each in everyone:
            each.end(_NoAnswer())

    # -- the worker

    def _begin(self) -> None:
        self._again = None
        worker = Worker(self._reactor, self._answered, self._died)
        self._worker = worker
        worker.start(self._program)

    def _answered(self, answer: bytes | None) -> None:
        """The worker has an answer; None: it is ready for questions."""
        asked, self._asked = self._asked, None
        if answer is not None:
            self._pause, self._deaths = PAUSE_S, 0
            if asked is not None:
                asked.end(answer)
        self._next()

    def _died(self, worker: Worker) -> None:
        self._worker = None
        asked, self._asked = self._asked, None
        if not self._running:
            return
        self._complain(worker.problem)
        self._deaths += 1
        if asked is not None and asked.tries == 1 and not asked.answer.called:
            self._ask_again(asked)  # it may have been killed for another reason
            asked = None
        # Who gets an answer goes on at once, and may stop all this.
        if worker.was_ready and self._deaths < MOST_DEATHS:
            self._begin()
        else:
            self._again = self._reactor.callLater(self._pause, self._begin)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
            self._give_up_all()
        if asked is not None:
            asked.end(_NoAnswer())

    def _ask_again(self, asked: _Waiting) -> None:
        if asked.limit is not None and asked.limit.active():
            asked.limit.cancel()
        asked.limit = self._reactor.callLater(WAIT_S, self._too_late, asked)
        self._queue.put(asked.client, asked)

    def _complain(self, problem: str) -> None:
        """Log what is wrong with the worker, now and then."""
        if self._reactor.seconds() < self._quiet_until:
            return
        self._quiet_until = self._reactor.seconds() + QUIET_S
        self._log.warn("the guard's worker is replaced: {problem}", problem=problem)


def _size(command: Command, script: bytes | None) -> int:
    return len(script or b"") + len(command.text)


def _findings(answer: bytes) -> tuple[Finding, ...]:
    """Return what the worker found. Raises DecodeError, ValueError: that can't be an answer."""
    found = msgspec.msgpack.decode(answer, type=tuple[Finding, ...])
    if any(each.rule not in RULES or len(each.where) > MAX_WHERE for each in found):
        raise ValueError("an unknown rule, or too many words")
    return found


def _busy() -> ProblemError:
    return ProblemError(
        Kind.RATE_LIMITED, "too many commands wait to be judged by the policy", hint="again in a few seconds"
    )
