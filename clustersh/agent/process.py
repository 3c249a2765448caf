"""Processes in a session of their own, whose output pipes can be drained at exit.

A new session and not only a group: without a controlling terminal, opening ``/dev/tty`` fails at once, where a
background group that reads it would be stopped for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IPullProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..wire.jobs import Outcome
from ..wire.output import Stream

READ_SIZE = 256 << 10
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


class SpawnError(Exception):
    """No process came to be; the message says why, for people."""


class JobProcess(ProcessProtocol):
    """One process's life, handed on to a listener with `output`, `stdin_taken`, `stdin_closed` and `exited`.

    Children that outlive the process may hold its pipes: what they hold at its exit is read, then they are closed.
    """

    transport: Any

    def __init__(self, listener: ProcessListener) -> None:
        self._listener = listener
        self._exited = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(_StdinRoom(self._listener), False)
        self._listener.spawned(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if not self._exited:
            self._listener.output(_STREAMS[childFD], data)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == 0:
            self._listener.stdin_closed()

    def processExited(self, reason: Failure) -> None:
        if self._exited:
            return
        self._exited = True
        if os.name == "posix":
            self._drain()
        self.transport.loseConnection()
        self._listener.exited(*_how_it_exited(reason))

    def _drain(self) -> None:
        pipes = self.transport.pipes
        for descriptor, stream in _STREAMS.items():
            if descriptor in pipes:
                for data in _held_by(pipes[descriptor].fileno()):
                    self._listener.output(stream, data)
        if 0 in pipes:
            # At once: nobody is left who should read what is still to be written.
            pipes[0].connectionLost(Failure(CONNECTION_DONE))


class ProcessListener:
    """Who is told of a process; the base of those who listen."""

    def spawned(self, transport: Any) -> None:
        """The process runs; everything else comes after this, perhaps before `spawn` returns."""

    def output(self, stream: Stream, data: bytes) -> None:
        """The process wrote *data*."""

    def stdin_taken(self) -> None:
        """All that was written to stdin is in the pipe."""

    def stdin_closed(self) -> None:
        """The process takes no more stdin."""

    def exited(self, code: int | None, number: int | None) -> None:
        """The process is gone, with an exit code or by a signal; its output is complete."""

    def gone(self, outcome: Outcome) -> None:
        """In place of `exited`, where that is not how it ended: what ran it tells the outcome."""

    def give_up(self, verdict: Outcome) -> None:
        """Nobody can tell what it does any more: all that it has started is to be ended, with this *verdict*."""


@implementer(IPullProducer)
class _StdinRoom:
    """Tells the listener whenever the stdin pipe has taken all: Twisted asks its producer for more then."""

    def __init__(self, listener: ProcessListener) -> None:
        self._listener = listener

    def resumeProducing(self) -> None:
        self._listener.stdin_taken()

    def stopProducing(self) -> None:
        """`stdin_closed` follows."""


def spawn(
    reactor: Any, listener: ProcessListener, argv: Sequence[bytes], environment: Mapping[bytes, bytes], *, stdin: bool
) -> None:
    """Start *argv* (the program by its path) in a new session. Without *stdin*, that is the null device.

    Raises SpawnError; a program that can't be run is one, too.
    """
    protocol = JobProcess(listener)
    try:
        _spawn(reactor, protocol, list(argv), dict(environment), stdin)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SpawnError(f"can't run {os.fsdecode(argv[0])}: {why}") from error


def close_stdin(transport: Any) -> None:
    """Let the process see the end of stdin, once it has taken what was written."""
    # A pipe that has a producer waits for its data for ever.
    transport.unregisterProducer()
    transport.closeStdin()


def _how_it_exited(reason: Failure) -> tuple[int | None, int | None]:
    if reason.check(ProcessDone):
        return 0, None
    if reason.check(ProcessTerminated):
        ended: Any = reason.value
        if ended.signal is not None:
            return None, ended.signal
        return ended.exitCode or 0, None
    return 1, None


if sys.platform == "win32":

    def _spawn(
        reactor: Any, protocol: JobProcess, argv: list[bytes], environment: dict[bytes, bytes], stdin: bool
    ) -> IProcessTransport:
        transport: IProcessTransport = reactor.spawnProcess(protocol, argv[0], argv, environment)
        if not stdin:
            transport.closeStdin()
        return transport

else:
    import fcntl
    import termios

    from twisted.internet.process import Process, ProcessReader

    def _spawn(
        reactor: Any, protocol: JobProcess, argv: list[bytes], environment: dict[bytes, bytes], stdin: bool
    ) -> IProcessTransport:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            descriptors: dict[int, int | str] = {0: "w" if stdin else null, 1: "r", 2: "r"}
            return SessionProcess(reactor, argv[0], argv, environment, None, protocol, childFDs=descriptors)
        finally:
            os.close(null)

    class _LargeReader(ProcessReader):
        """Reads in larger pieces than Twisted's 8 KiB."""

        def doRead(self) -> Exception | None:
            try:
                data = os.read(self.fd, READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return CONNECTION_LOST
            if not data:
                return CONNECTION_DONE
            self.dataReceived(data)
            return None

    class SessionProcess(Process):
        """A Process that leads a new session.

        Twisted has no option for that, so this overrides two of its private methods; a test watches that they are
        still the ones that are called, and `_check_session` fails loudly at run time.
        """

        processReaderFactory = _LargeReader

        def _trySpawnInsteadOfFork(
            self,
            path: Any,
            uid: Any,
            gid: Any,
            executable: bytes,
            args: list[bytes],
            environment: dict[bytes, bytes],
            kwargs: dict[str, Any],
        ) -> bool:
            descriptors: dict[int, int] = kwargs["fdmap"]
            if min(descriptors.values()) < 3:
                return False  # moving them in the right order is what the fork path knows
            # All our other descriptors are close-on-exec (PEP 446, see keep_descriptors_private).
            actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()]
            try:
                self.pid = os.posix_spawn(
                    executable,
                    args,
                    environment,
                    file_actions=actions,
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_ignored_signals(),
                )
            except NotImplementedError:
                return False  # a system whose posix_spawn knows no sessions
            self.status = -1
            self._check_session()
            return True

        def _setupChild(self, *args: Any, **kwargs: Any) -> None:
            os.setsid()
            super()._setupChild(*args, **kwargs)

        def _check_session(self) -> None:
            assert self.pid is not None
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(self.pid) != self.pid:
                    os.kill(self.pid, signal.SIGKILL)
                    raise OSError("the process did not get a session of its own")


@cache
def _ignored_signals() -> list[int]:
    """Return what this process ignores, which never changes once the service runs."""
    return [number for number in range(1, signal.NSIG) if signal.getsignal(number) == signal.SIG_IGN]


def _held_by(descriptor: int) -> list[bytes]:
    """Read what a pipe holds now, and no more than that: a child that goes on writing can't delay the end."""
    try:
        held = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
    except OSError:
        return []
    pieces: list[bytes] = []
    while held > 0:
        try:
            piece = os.read(descriptor, min(held, READ_SIZE))
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
        held -= len(piece)
    return pieces


def keep_descriptors_private() -> None:
    """Mark every descriptor that this process was started with (but 0 to 2) as not for its children."""
    if os.name != "posix":
        return
    folder = Path("/dev/fd")
    for name in [entry.name for entry in folder.iterdir()] if folder.is_dir() else []:
        with contextlib.suppress(OSError, ValueError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)
