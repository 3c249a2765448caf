"""The standby: it takes calls at its socket until nobody made one for a while, or what it has read has changed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from ... import __version__
from ...cli.console import Console
from ...cli.invocation import Invocation, Kept, Signals
from ...config import load
from ...trust.credentials import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from ...wire.rest import Whoami
from ..client import connect
from ..state import LOGIN_FILE, PENDING_FILE, client_folder
from .keeping import Keeper
from .place import Place, bounds
from .session import Session
from .state import State

LOOK_EVERY_S = 5.0
LOOK_AT_MODULES_S = 1.0
"""Seconds between looks at program files: there are hundreds, and an upgrade takes longer."""
HUNG_CPU_S = 20.0 + LOOK_EVERY_S * (os.cpu_count() or 1)
"""Seconds of processor time between two looks that only an endless loop takes, however many threads read files: it is
ended then."""
BACKLOG = 512


class Standby(Factory):
    """Stands by at *where*, holding *lock*."""

    noisy = False

    def __init__(self, reactor: Any, where: Place, lock: int) -> None:
        self._reactor = reactor
        self._where = where
        self._lock = lock
        self._port: Any = None
        self._running: set[Session] = set()
        self._calls = 0
        self._started = time.time()
        self._since = reactor.seconds()
        self.key = where.key
        self.bounds = bounds("self")
        self.home = Path(where.home)
        self.kept = Kept()
        self._keeper = Keeper(reactor, self.kept)
        self._patience = 0.0
        self._state: dict[str, tuple[int, int, int] | None] = {}
        self._modules: dict[str, tuple[int, int, int] | None] = {}
        self._looked = 0.0
        self._own: tuple[int, int, int] | None = None

    def begin(self) -> None:
        """Read what is to be read, then take calls."""
        self._state, self._modules = _look_at(self._state_files()), _look_at(_program_files())
        self._patience = float(load(self.home).client.standby)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._where.socket)
        self._port = self._reactor.listenUNIX(self._where.socket, self, backlog=BACKLOG, mode=0o600)
        self._own = _look(self._where.socket)
        LoopingCall(self._look_around).start(LOOK_EVERY_S)
        Deferred.fromCoroutine(self._open_connection()).addErrback(lambda _: None)

    def buildProtocol(self, addr: object) -> Session:
        """Return what serves one connection."""
        return Session(self._reactor, self)

    # -- what sessions ask

    def fresh(self) -> bool:
        """Whether nothing changed of what this process has read; else it ends."""
        if self._port is None:
            return False
        now = self._reactor.seconds()
        if now - self._looked >= LOOK_AT_MODULES_S and _look_at(self._modules) == self._modules:
            self._looked = now
        if now - self._looked < LOOK_AT_MODULES_S and _look_at(self._state) == self._state:
            return True
        self._retire()
        return False

    def began(self, session: Session) -> None:
        """A call begins."""
        self._running.add(session)
        self._calls += 1

    def ended(self, session: Session) -> None:
        """A call ended."""
        self._running.discard(session)
        self._since = self._reactor.seconds()
        if self._port is None and not self._running:
            self._reactor.callLater(0, self._exit_once_told)

    def state(self) -> bytes:
        """Return what `clustersh standby` shows."""
        idle = self._reactor.seconds() - self._since if not self._running else 0.0
        state = State(
            os.getpid(),
            __version__,
            self._where.socket,
            self._started,
            self._calls,
            len(self._running),
            idle,
            self._patience,
        )
        return msgspec.json.encode(state)

    def stop(self) -> None:
        """Take no more calls, and end once those that run have ended."""
        self._retire()

    # -- the end

    def _look_around(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, HUNG_CPU_S)
        if self._port is None or not self.fresh():
            return
        found, own = _look(self._where.socket), self._own
        gone = found is None or own is None or found[0] != own[0]
        idle_s = self._reactor.seconds() - self._since
        if gone or (not self._running and idle_s >= self._patience):
            self._retire()
            return
        self._keeper.look()

    def _retire(self) -> None:
        """Make room for the next standby: it may start while calls go on here."""
        port, self._port = self._port, None
        if port is None:
            return
        port.stopListening()
        os.close(self._lock)
        if not self._running:
            self._reactor.callLater(0, self._exit_once_told)

    def _exit_once_told(self) -> None:
        """End when what was written last has had its turn to go."""
        self._reactor.callLater(0.1, self._exit)

    def _exit(self) -> None:
        if not self._running:
            os._exit(0)  # a thread may wait for ever for a pipe that nobody writes to

    # -- what it has read

    def _state_files(self) -> list[str]:
        folder = client_folder(self.home)
        names = (LOGIN_FILE, PENDING_FILE, KEY_FILE, CERTIFICATE_FILE, CA_FILE)
        state = [Path("/etc/localtime"), self.home / "config.toml", *(folder / name for name in names)]
        return list(map(str, state))

    async def _open_connection(self) -> None:
        """Have the way to the coordinator open before the next call."""
        environ: dict[str, str] = {}
        null = os.open(os.devnull, os.O_RDWR)
        invocation = Invocation(
            program="clustersh",
            argv=(),
            cwd=Path("/"),
            environ=environ,
            home=self.home,
            console=Console.on(null, null, environ, _no_thread),
            stdin=_NoInput(),
            signals=Signals(lambda _: None),
            in_thread=_no_thread,
            kept=self.kept,
        )
        client = await connect(self._reactor, invocation)
        await client.call("GET", "/v1/whoami", answer=Whoami)


class _NoInput:
    is_terminal = False

    async def read(self, _limit: int) -> bytes:
        return b""


async def _no_thread(_function: object) -> None:
    raise AssertionError("this needs no thread")


def _program_files() -> list[str]:
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "clustersh"]
    files = (getattr(module, "__file__", None) for module in modules)
    return [path for path in files if path is not None]


def _look_at(paths: Iterable[str]) -> dict[str, tuple[int, int, int] | None]:
    return {path: _look(path) for path in paths}


def _look(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is written, replaced or given other rights; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size
