"""One call of a console program: everything it may know of its caller, and nothing of this process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from .console import Console
from .descriptors import InThread
from .errors import UsageError

SignalHandler: TypeAlias = Callable[[int], None]


class Interrupted(Exception):
    """A signal broke in on work that blocks; it will be delivered to the command, once that asks for signals."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Signals:
    """Hands the caller's signals (SIGINT, SIGTERM, SIGHUP, as numbers) to the command that runs.

    *unhandled* gets those that no command asked for. Before there is a reactor they are noted, and delivered to the
    first handler.
    """

    def __init__(self, unhandled: SignalHandler) -> None:
        self._unhandled = unhandled
        self._handler: SignalHandler | None = None
        self._noted: list[int] = []
        self._breaking_in = False

    @property
    def handler(self) -> SignalHandler | None:
        """Who is told; a new one is told at once of what was noted."""
        return self._handler

    @handler.setter
    def handler(self, handler: SignalHandler | None) -> None:
        self._handler = handler
        if handler is not None:
            noted, self._noted = self._noted, []
            for number in noted:
                handler(number)

    def deliver(self, number: int) -> None:
        """Tell the command, or else end it."""
        (self._handler or self._unhandled)(number)

    def note(self, number: int) -> None:
        """Keep a signal that came before there was a reactor; raises Interrupted where it may break in."""
        self._noted.append(number)
        if self._breaking_in:
            raise Interrupted(number)

    def let_end(self) -> None:
        """No command will ask for signals: one that was noted ends this one now, as any that comes."""
        for number in self._noted:
            self._unhandled(number)

    @contextlib.contextmanager
    def breaking_in(self) -> Iterator[None]:
        """Let signals end work that blocks."""
        self._breaking_in = True
        try:
            yield
        finally:
            self._breaking_in = False


class Stdin(Protocol):
    """The caller's standard input, read only when asked."""

    is_terminal: bool

    async def read(self, limit: int) -> bytes:
        """Return 1 to *limit* bytes; empty at the end. Raises UsageError where it can't be read."""


class StdinReader:
    """This process's own standard input, read in a thread."""

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


class Kept:
    """What outlives an invocation where many share a process: the way to the coordinator (a RestClient)."""

    def __init__(self) -> None:
        self.rest: Any = None


class Invocation:
    """What a command gets instead of ``os.environ``, ``os.getcwd()`` and ``sys``.

    *argv* is without the program's own name; *home* is clustersh's state directory; *now* returns the wall clock in
    seconds. *key* is the idempotency key of what this call may start; *kept* is there in a process that serves many.
    `json` says whether errors are printed as documents; `started` and `uuid` what is known of a command that may run
    somewhere, for errors that nobody foresaw.
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
        stdin: Stdin,
        signals: Signals,
        in_thread: InThread,
        now: Callable[[], float] = time.time,
        key: str = "",
        kept: Kept | None = None,
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
        self.key = key or os.urandom(16).hex()
        self.kept = kept
        self.json = False
        self.started: bool | None = False
        self.uuid = ""

    def path(self, text: str) -> Path:
        """Return the path that the caller means by *text*."""
        return self.cwd / text
