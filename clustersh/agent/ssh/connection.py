"""Connections kept to one destination, each a process of the system's ``ssh`` that others go through.

Its main session is the greeter's (scripts.GREETER), whose stdin this process holds: whatever becomes of this process,
that session ends, and the connection with it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as WaitedEnough
from twisted.internet.error import ProcessExitedAlready
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...cli.text import printable
from ...wire.output import Stream
from ..process import ProcessListener, SpawnError, spawn
from . import scripts
from .problems import HostError, explain

MAX_SESSIONS = 8
"""Commands that go over one connection at once: an sshd allows 10 unless told otherwise, and one is the greeter's."""
OPEN_S = 30.0
CONNECT_S = 15
_SAID_LIMIT = 64 << 10
# Whatever the user's configuration says: nobody is there to be asked, and a connection serves commands alone.
_OPTIONS = (
    *("BatchMode=yes", "ClearAllForwardings=yes", "ControlPersist=no", "ForkAfterAuthentication=no", "ForwardX11=no"),
    *("LogLevel=ERROR", "PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no", "SessionType=default"),
    *("StdinNull=no", "VisualHostKey=no"),
)
_MASTER = ("ControlMaster=yes", f"ConnectTimeout={CONNECT_S}", "ServerAliveInterval=15", "ServerAliveCountMax=3")
# Where the connection is gone, ssh would make one of its own.
_GUEST = ("ControlMaster=no", "ProxyJump=none", "ProxyCommand=false")


class Program(NamedTuple):
    """The system's ssh and what it is run with; *here* is what this host is called in messages."""

    reactor: Any
    path: str
    environment: Mapping[bytes, bytes]
    sockets: Path
    here: str


def word(script: str) -> str:
    """Return *script* (see scripts) as one word for any shell."""
    assert "'" not in script and "\n" not in script
    return f"'{script}'"


class Connection(ProcessListener):
    """One connection. *on_gone* is called once when it ends after it was open."""

    def __init__(self, program: Program, destination: str, on_gone: Callable[[Connection], None]) -> None:
        self._program = program
        self._destination = destination
        self._on_gone = on_gone
        self._socket = program.sockets / secrets.token_hex(4)
        self._transport: Any = None
        self._stdout, self._stderr = bytearray(), bytearray()
        self._answer: Deferred[str] | None = None
        self._opened = False
        self._closing = False
        self._ended = False
        self._sessions = 0
        self._idle = False

    @property
    def usable(self) -> bool:
        """Whether commands can go over it."""
        return self._opened and not self._closing and not self._ended

    def enter(self) -> bool:
        """Have one more command go over it, or be about to, until `leave`; False where it has no room."""
        if not self.usable or self._sessions >= MAX_SESSIONS:
            return False
        self._sessions += 1
        self._idle = False
        return True

    def leave(self) -> None:
        """A command goes over it no more."""
        self._sessions -= 1

    def close_if_idle(self) -> None:
        """End it where nothing has gone over it since this was last called."""
        if self._idle and not self._sessions:
            self.close()
        self._idle = not self._sessions

    async def open(self) -> str:
        """Connect; return what the machine says of itself. Raises HostError."""
        argv = self._argv((*_MASTER, *_OPTIONS), f"exec sh -c {word(scripts.GREETER)}")
        answer = self._answer = Deferred()  # it may fail before `spawn` returns
        try:
            spawn(self._program.reactor, self, argv, self._program.environment, stdin=True)
            said = await answer.addTimeout(OPEN_S, self._program.reactor)
        except SpawnError as error:
            raise HostError(f"ssh {self._destination}: {error}") from error
        except WaitedEnough as error:
            self.close()
            why = f"ssh {self._destination}: it does not answer within {OPEN_S:.0f} seconds"
            raise HostError(why, "see whether it is on, and to the network", away=True) from error
        self._opened = True
        return said

    async def ask(self, seconds: float) -> str | None:
        """Return how the machine does now; None where it doesn't say in time, or is still being asked."""
        if not self.usable or self._answer is not None:
            return None
        answer = self._answer = Deferred()
        told: Deferred[str | None] = Deferred()

        def hand_on(said: str | Failure) -> None:
            if not told.called:
                told.callback(None if isinstance(said, Failure) else said)

        answer.addBoth(hand_on)
        self._transport.write(b"\n")
        return await told.addTimeout(seconds, self._program.reactor).addErrback(lambda _: None)

    def argv(self, command: str) -> list[bytes]:
        """Return what runs *command*, words for a shell, over this connection."""
        return self._argv((*_GUEST, *_OPTIONS), command)

    def close(self) -> None:
        """End it, and what goes over it."""
        self._closing = True
        if self._transport is not None and not self._ended:
            with contextlib.suppress(ProcessExitedAlready):
                self._transport.signalProcess("TERM")

    def _argv(self, options: tuple[str, ...], command: str) -> list[bytes]:
        words = [self._program.path, "-T", "-S", str(self._socket)]
        for option in options:
            words += ["-o", option]
        return [text.encode("utf-8", "surrogateescape") for text in (*words, "--", self._destination, command)]

    # -- what the process tells

    def spawned(self, transport: Any) -> None:
        self._transport = transport

    def output(self, stream: Stream, data: bytes) -> None:
        said = self._stdout if stream is Stream.STDOUT else self._stderr
        said += data
        del said[:-_SAID_LIMIT]
        end = self._stdout.find(scripts.READY + b"\n")
        if end >= 0 and self._answer is not None:
            told = self._stdout[:end].decode(errors="replace")
            self._stdout.clear()
            answer, self._answer = self._answer, None
            answer.callback(told)

    def exited(self, code: int | None, number: int | None) -> None:
        self._ended = True
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.errback(self._why(code))
        with contextlib.suppress(OSError):
            self._socket.unlink(missing_ok=True)
        if self._opened:
            self._on_gone(self)

    def _why(self, code: int | None) -> HostError:
        said = self._stderr.decode(errors="replace")
        if code not in (None, 255) and not said.strip():
            said = self._stdout.decode(errors="replace")
        if code not in (None, 255):
            last = (said.strip().splitlines() or [f"exit {code}"])[-1]
            why = f"ssh {self._destination}: its login gives no shell: {printable(last[:300])}"
            return HostError(why, f"on {self._program.here}, see: ssh {self._destination} true")
        return explain(said, self._destination, self._program.here)


class Connections:
    """The connections to one destination: one, and more while it is too busy.

    *on_greeted* gets what it says first, *on_tried* is told of each attempt's end, *on_lost* of the last one's.
    """

    _log = Logger()

    def __init__(
        self,
        program: Program,
        destination: str,
        on_greeted: Callable[[str], None],
        on_tried: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._program = program
        self.destination = destination
        self._on_greeted = on_greeted
        self._on_tried = on_tried
        self._on_lost = on_lost
        self._open: list[Connection] = []
        self._opening: Connection | None = None
        self._waiting: list[Deferred[None]] = []
        """Who waits for the connection that is being made."""
        self.closed = False
        self.problem: HostError | None = None
        """Why the last attempt failed, or that the connection was lost; None once an attempt did not."""

    @property
    def one(self) -> Connection | None:
        """A connection that is there, if one is."""
        return self._open[0] if self._open else None

    async def take(self) -> Connection:
        """Return a connection that one more command may go over, until it is left. Raises HostError.

        Who waits may be cancelled; the connection is made all the same, for the others.
        """
        while True:
            if self.closed:
                raise HostError(f"ssh {self.destination}: the agent lets go of it")
            for connection in self._open:
                if connection.enter():
                    return connection
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            if self._opening is None:
                self._opening = Connection(self._program, self.destination, self._gone)
                Deferred.fromCoroutine(self._connect(self._opening)).addErrback(self._failed)
            await waiting
            if self.problem is not None:
                raise HostError(self.problem.why, self.problem.do, away=self.problem.away)

    def close_idle(self) -> None:
        """End those but the first that nothing has gone over since this was last called."""
        for connection in self._open[1:]:
            connection.close_if_idle()

    async def _connect(self, connection: Connection) -> None:
        try:
            said = await connection.open()
        except HostError as error:
            self._tell(error)
        else:
            self._open.append(connection)
            self._on_greeted(said)
            self._tell(None)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a connection can't be made", failure)
        self._tell(HostError(f"ssh {self.destination}: internal error of the agent"))

    def _tell(self, problem: HostError | None) -> None:
        self.problem, self._opening = problem, None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        self._on_tried()

    def _gone(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            if not self._open and not self.closed:
                self.problem = HostError(f"ssh {self.destination}: the connection was lost", away=True)
                self._on_lost()

    def close(self) -> None:
        """End all of them, and make none any more."""
        self.closed = True
        for connection in (*self._open, *([self._opening] if self._opening else [])):
            connection.close()
