"""A process that its executor speaks with: what the job hears of it is what the executor makes of it."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready

from ...wire.jobs import Outcome, State
from ...wire.output import Stream
from ..process import ProcessListener, close_stdin
from . import ExecutorError
from .chosen import Chosen


class Session(ProcessListener):
    """Stands between a process and *listener*, which hears of the command alone, as the *conversation* tells it.

    *stdin* says whether the job has any. Where *executor* fails, the job is ended: nobody would know what it does.
    """

    def __init__(self, executor: Chosen, conversation: Any, listener: ProcessListener, *, stdin: bool) -> None:
        self._executor = executor
        self._conversation = conversation
        self._listener = listener
        self._stdin = stdin
        self._transport: Any = None
        self._over = False
        self._failed: Outcome | None = None

    def spawned(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._conversation.first)
        if not self._stdin:
            close_stdin(transport)
        self._listener.spawned(transport)

    def output(self, stream: Stream, data: bytes) -> None:
        if self._over:
            return
        try:
            self._hear(stream, data)
            with self._executor.blamed():
                ended = _checked(self._conversation.ended)
        except ExecutorError as error:
            self._over, self._failed = True, _interrupted(error)
            self._listener.give_up(self._failed)
            return
        if ended is not None:
            self._over = True
            # Something left in the background may hold the streams.
            with contextlib.suppress(ProcessExitedAlready):
                self._transport.signalProcess("TERM")
            self._listener.gone(ended)

    def stdin_taken(self) -> None:
        if self._stdin:
            self._listener.stdin_taken()

    def stdin_closed(self) -> None:
        if self._stdin:
            self._listener.stdin_closed()

    def exited(self, code: int | None, number: int | None) -> None:
        close(self._executor, self._conversation)
        if self._failed is not None:
            self._listener.gone(self._failed)
        elif not self._over:
            self._over = True
            Deferred.fromCoroutine(self._find_out(code, number))

    async def _find_out(self, code: int | None, number: int | None) -> None:
        """The process is gone, and how the command ended was not heard so far."""
        try:
            for stream in (Stream.STDOUT, Stream.STDERR):
                self._hear(stream, b"")
            with self._executor.blamed():
                outcome = _checked(self._conversation.ended)
                if outcome is None:
                    outcome = _checked(await self._executor.in_time(self._conversation.outcome, code, number))
                if outcome is None:
                    raise TypeError("it does not say how the command ended")
        except ExecutorError as error:
            outcome = _interrupted(error)
        self._listener.gone(outcome)

    def _hear(self, stream: Stream, data: bytes) -> None:
        with self._executor.blamed():
            own = self._conversation.heard(stream, data)
            if not isinstance(own, bytes):
                raise TypeError("what it heard is no bytes")
        if own:
            self._listener.output(stream, own)


def close(executor: Chosen, conversation: Any) -> None:
    """End a *conversation*: its process is gone, or never came."""
    with contextlib.suppress(ExecutorError), executor.blamed():
        conversation.close()


def _checked(ended: object) -> Outcome | None:
    if ended is None or isinstance(ended, Outcome):
        return ended
    raise TypeError("how the command ended is no Outcome")


def _interrupted(error: ExecutorError) -> Outcome:
    return Outcome(State.INTERRUPTED, reason=str(error))
