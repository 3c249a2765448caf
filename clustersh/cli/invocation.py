"""One call of a console program: everything it may know of its caller, and nothing of this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .console import Console, InThread
from .errors import UsageError

SignalHandler: TypeAlias = Callable[[int], None]


class Signals:
    """Hands the caller's signals (SIGINT, SIGTERM, SIGHUP, as numbers) to the command that runs.

    *unhandled* gets those that no command asked for.
    """

    def __init__(self, unhandled: SignalHandler) -> None:
        self._unhandled = unhandled
        self.handler: SignalHandler | None = None

    def deliver(self, number: int) -> None:
        """Tell the command, or else end it."""
        (self.handler or self._unhandled)(number)


class StdinReader:
    """The caller's standard input, read in a thread and only when asked."""

    def __init__(self, descriptor: int, in_thread: InThread) -> None:
        self._descriptor = descriptor
        self._in_thread = in_thread
        self.is_terminal = os.isatty(descriptor)

    async def read(self, limit: int) -> bytes:
        """Return 1 to *limit* bytes; empty at the end. Raises UsageError where it can't be read."""
        data: bytes = await self._in_thread(lambda: self._read_now(limit))
        return data

    def _read_now(self, limit: int) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, limit)
            except BlockingIOError:
                _wait_readable(self._descriptor)
            except OSError as error:
                raise UsageError(f"can't read standard input: {error.strerror}") from error


def _wait_readable(descriptor: int) -> None:
    """Wait on an input that the caller made non-blocking; its flags are shared and stay."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


class Invocation:
    """What a command gets instead of ``os.environ``, ``os.getcwd()`` and ``sys``.

    *argv* is without the program's own name; *home* is clustersh's state directory; *now* returns the wall clock in
    seconds. `json` says whether errors are printed as documents; `started` and `uuid` what is known of a command that
    may run somewhere, for errors that nobody foresaw.
    """

    def __init__(
        self,
        *,
        program: str,
        argv: Sequence[str],
        cwd: Path,
        environ: Mapping[str, str],
        home: Path,
        console: Console,
        stdin: StdinReader,
        signals: Signals,
        in_thread: InThread,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.program = program
        self.argv = tuple(argv)
        self.cwd = cwd
        self.environ = environ
        self.home = home
        self.console = console
        self.stdin = stdin
        self.signals = signals
        self.in_thread = in_thread
        self.now = now
        self.json = False
        self.started: bool | None = False
        self.uuid = ""

    def path(self, text: str) -> Path:
        """Return the path that the caller means by *text*."""
        return self.cwd / text
