"""The environment of commands: what its user has at an interactive login, read once when the agent starts."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..wire.output import Stream
from .process import ProcessListener, SpawnError, spawn
from .tree import MARK_JOB, MARK_MACHINE, Tree, TreeEnder, created

LOGIN_LIMIT_S = 10.0
_OUTPUT_LIMIT = 4 << 20
_LOGIN = "login"
# Of the shell or the service manager that started us; false or harmful in a command.
_OURS = frozenset(
    {"_", "SHLVL", "PWD", "OLDPWD", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"}
    | {"INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
    | {"MANAGERPID", "SYSTEMD_EXEC_PID", "WATCHDOG_PID", "WATCHDOG_USEC"}
)

log = Logger()


def service_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return this service's own environment *environ* without what is only the service's.

    A virtual environment that the service was started from isn't the user's.
    """
    kept = {name: value for name, value in environ.items() if not _is_ours(name)}
    virtual = environ.get("VIRTUAL_ENV")
    if virtual and "PATH" in kept:
        ours = {str(Path(virtual, "bin")), str(Path(virtual, "Scripts"))}
        folders = [folder for folder in kept["PATH"].split(os.pathsep) if folder.rstrip("/") not in ours]
        kept["PATH"] = os.pathsep.join(folders)
    return kept


async def read_environment(
    reactor: Any, kind: Literal["login", "service"], environ: Mapping[str, str], ender: TreeEnder
) -> dict[str, str]:
    """Return what commands inherit. A login that fails or takes over 10 s is logged; the service's own is used then."""
    own = service_environment(environ)
    if kind == "service" or sys.platform == "win32":
        return own
    shell, account = _account()
    own = {**account, **own}
    marker = secrets.token_hex(16)
    try:
        output = await _LoginShell(reactor, ender, marker).run(shell, own)
        return _parse(output, marker.encode())
    except (SpawnError, _LoginFailed) as error:
        log.warn(
            "can't read the login environment from {shell}: {why}; commands get the service's own",
            shell=shell,
            why=str(error),
        )
        return own


def as_bytes(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return *environ* as a process gets it."""
    return {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}


def for_job(base: Mapping[bytes, bytes], uuid: str, machine: str, extra: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return the environment of one job: *base* (see `as_bytes`), its marks, and what was asked for with it."""
    whole = dict(base)
    whole.update((name.encode(), value.encode()) for name, value in extra.items())
    whole[MARK_JOB.encode()] = uuid.encode()
    whole[MARK_MACHINE.encode()] = machine.encode()
    return whole


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("CLUSTERSH_")


def _account() -> tuple[str, dict[str, str]]:
    """Return the user's login shell, and what every login sets."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return "/bin/sh", {}
    shell = user.pw_shell or "/bin/sh"
    return shell, {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": shell}


def _parse(output: bytes, marker: bytes) -> dict[str, str]:
    """Return the variables between two markers in *output*; start-up files may print before and after."""
    parts = output.split(marker)
    if len(parts) != 3:
        raise _LoginFailed("it did not tell its environment")
    pairs = (entry.partition(b"=") for entry in parts[1].split(b"\0") if entry)
    found = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    virtual = {"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"}  # the login's own: ours was not passed to it
    return {name: value for name, value in found.items() if name in virtual or not _is_ours(name)}


class _LoginFailed(Exception):
    """The login shell told no environment; the message says why."""


class _LoginShell(ProcessListener):
    """One run of a login shell that prints its environment between markers."""

    def __init__(self, reactor: Any, ender: TreeEnder, marker: str) -> None:
        self._reactor = reactor
        self._ender = ender
        self._marker = marker
        self._token = secrets.token_hex(8)
        self._output = bytearray()
        self._pid: int | None = None
        self._exited = False
        self._done: Deferred[None] = Deferred()

    async def run(self, shell: str, environ: Mapping[str, str]) -> bytes:
        # The marker is passed in halves, so that a shell that echoes its command line doesn't print it.
        half = len(self._marker) // 2
        program = (
            "import os,sys;m=(sys.argv[1]+sys.argv[2]).encode();"
            "sys.stdout.buffer.write(m+b'\\0'.join(k+b'='+v for k,v in os.environb.items())+m)"
        )
        words = [sys.executable, "-I", "-S", "-c", program, self._marker[:half], self._marker[half:]]
        argv = [shell, "-l", "-i", "-c", shlex.join(words)]
        environment = for_job(as_bytes(environ), _LOGIN, self._token, {})
        timer = self._reactor.callLater(LOGIN_LIMIT_S, self._fail, f"it took over {LOGIN_LIMIT_S:.0f} s")
        try:
            spawn(self._reactor, self, [os.fsencode(word) for word in argv], environment, stdin=False)
            await self._done
        finally:
            if timer.active():
                timer.cancel()
            if self._pid is not None and not self._exited:
                await self._end_tree()
        return bytes(self._output)

    async def _end_tree(self) -> None:
        leader_created = None if self._pid is None else created(self._pid)
        await self._ender.end(Tree(_LOGIN, self._token, self._pid, leader_created))

    def _fail(self, why: str) -> None:
        if not self._done.called:
            self._done.errback(_LoginFailed(why))

    def spawned(self, transport: Any) -> None:
        self._pid = transport.pid

    def output(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT and len(self._output) + len(data) <= _OUTPUT_LIMIT:
            self._output += data

    def exited(self, code: int | None, number: int | None) -> None:
        self._exited = True
        if not self._done.called:
            self._done.callback(None)
