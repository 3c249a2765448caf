"""Commands that an agent itself runs over a connection: those that end a job's processes, and bring its files."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as WaitedEnough

from ...wire.output import Stream
from ..executors import ExecutorError
from ..process import ProcessListener, SpawnError, spawn
from .connection import Connections, Program, word

_SAID_LIMIT = 4096


class Ended(Exception):
    """The command ended with *status*; the message is what it said, for people."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class _Command(ProcessListener):
    def __init__(self) -> None:
        self.done: Deferred[int] = Deferred()
        self.transport: Any = None
        self.said = bytearray()

    def spawned(self, transport: Any) -> None:
        self.transport = transport

    def output(self, stream: Stream, data: bytes) -> None:
        self.said += data
        del self.said[:-_SAID_LIMIT]

    def kill(self) -> None:
        """End it, and all that it has started: it leads a group of its own."""
        if self.transport.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.transport.pid, signal.SIGKILL)

    def exited(self, code: int | None, number: int | None) -> None:
        if not self.done.called:
            self.done.callback(255 if code is None else code)


async def run(
    program: Program, connections: Connections, script: str, words: str, seconds: float, source: str = ""
) -> None:
    """Run *script* (see scripts) with *words* of shell over a connection, to its end; at most *seconds*.

    What lies in the folder *source* becomes its stdin, as tar. Raises Ended unless its status is 0, and ExecutorError
    where there is no connection.
    """
    connection = await connections.take()
    try:
        argv = connection.argv(f"exec sh -c {word(script)} sh {words}")
        environment = program.environment
        if source:
            line = 'p=$1; shift; tar -C "$p" -cf - . | exec "$@"'
            argv = [b"/bin/sh", b"-c", line.encode(), b"sh", source.encode("utf-8", "surrogateescape"), *argv]
            environment = {**environment, b"COPYFILE_DISABLE": b"1"}  # else macOS' tar adds files of its own
        command = _Command()
        try:
            spawn(program.reactor, command, argv, environment, stdin=False)
            status = await command.done.addTimeout(seconds, program.reactor)
        except SpawnError as error:
            raise ExecutorError(f"ssh {connections.destination}: {error}") from error
        except WaitedEnough as error:
            command.kill()
            raise Ended(255, f"it did not end within {seconds:.0f} seconds") from error
        except CancelledError:
            command.kill()
            raise
    finally:
        connection.leave()
    if status:
        raise Ended(status, command.said.decode(errors="replace").strip())
