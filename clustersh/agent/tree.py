"""A job's process tree: finding all of it, and ending it.

A job's processes are the members of its session, whatever has its mark in the environment (a child that called
``setsid`` itself), and the descendants of both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..clocks import boot_clock

MARK_JOB = "CLUSTERSH_JOB"
MARK_MACHINE = "CLUSTERSH_MACHINE"
_LOOK_AGAIN_S = (0.01, 0.02, 0.05, 0.1)
_LOOK_AFTER_FAILURE_S = 1.0
_GIVE_UP_S = 10.0
"""Seconds after the first KILL; what then still lives is stuck in the kernel."""


class Tree(NamedTuple):
    """What names a job's processes. *leader* is its first process, *created* when that began (`Found.created`)."""

    uuid: str
    machine: str
    leader: int | None = None
    created: float | None = None


class Found(NamedTuple):
    """A live process. *created* with its pid tells it from any other, until the machine boots again."""

    pid: int
    parent: int
    session: int
    created: float
    job: str
    machine: str


Snapshot = dict[int, Found]


def boot_id() -> str:
    """Return what changes when this machine boots."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return str(round(psutil.boot_time()))


def created(pid: int) -> float | None:
    """Return when the process began, as `Found.created` says it; None once it is gone, or can't be looked at."""
    try:
        found = _look_at(pid, environment=False)
    except OSError:
        return None
    return None if found is None else found.created


def age(created: float) -> float:
    """Return how long ago (seconds) a process began of which `created` says that."""
    return max(0.0, _clock_of_processes() - created)


def take_snapshot() -> Snapshot:
    """Return every live process that may be seen; blocks. Raises OSError where it can't look, rather than miss one."""
    found = (_look_at(pid) for pid in psutil.pids())
    return {process.pid: process for process in found if process is not None}


def members(tree: Tree, processes: Snapshot) -> list[Found]:
    """Return the tree's processes in *processes*, never this one or its parents."""
    own = _with_ancestors(os.getpid(), processes)
    leader = processes.get(tree.leader) if tree.leader is not None else None
    # A dead leader's session keeps its number for as long as it has members; a live one must be the same process.
    session = tree.leader if leader is None or leader.created == tree.created else None
    inside = {
        process.pid
        for process in processes.values()
        if (session is not None and process.session == session)
        or (process.job == tree.uuid and process.machine == tree.machine)
    }
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = list(inside)
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), ()) if pid not in inside]
        inside.update(below)
        waiting += below
    return [processes[pid] for pid in sorted(inside - own)]


class TreeEnder:
    """Ends process trees. Those that are ended at one time share their looks at the process table.

    *in_thread* runs a function in a thread; *grace* is the seconds between TERM and KILL.
    """

    _log = Logger()

    def __init__(self, reactor: Any, in_thread: Callable[[Callable[[], Any]], Deferred[Any]], grace: float) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._grace = grace
        self._waiting: list[Deferred[Snapshot | None]] = []
        self._looking = False

    async def end(self, tree: Tree) -> bool:
        """End all of *tree*: TERM, after the grace KILL, until nothing is left.

        Returns False where something lives on (stuck in the kernel, or another user's).
        """
        if sys.platform == "win32":
            return await self._taskkill(tree)
        began = self._reactor.seconds()
        asked: set[tuple[int, float]] = set()
        pauses = iter(_LOOK_AGAIN_S)
        while True:
            processes = await self._look()
            waited = self._reactor.seconds() - began
            if processes is None:
                _signal_group(tree, signal.SIGKILL if waited >= self._grace else signal.SIGTERM)
                await deferLater(self._reactor, _LOOK_AFTER_FAILURE_S)
                continue
            left = members(tree, processes)
            if not left:
                return True
            if waited > self._grace + _GIVE_UP_S:
                pids = ", ".join(str(process.pid) for process in left)
                self._log.warn("job {uuid}: could not end its processes {pids}", uuid=tree.uuid, pids=pids)
                return False
            if waited >= self._grace:
                _signal(left, signal.SIGKILL)
            else:
                fresh = [process for process in left if (process.pid, process.created) not in asked]
                _signal(fresh, signal.SIGTERM)
                _signal(fresh, signal.SIGCONT)  # a stopped process gets the TERM only then
                asked.update((process.pid, process.created) for process in fresh)
            await deferLater(self._reactor, next(pauses, _LOOK_AGAIN_S[-1]))

    async def _look(self) -> Snapshot | None:
        """Take a snapshot that begins after this call, one for all who wait; None where that can't be done now."""
        mine: Deferred[Snapshot | None] = Deferred()
        self._waiting.append(mine)
        if not self._looking:
            Deferred.fromCoroutine(self._look_for_all())
        return await mine

    async def _look_for_all(self) -> None:
        self._looking = True
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            processes: Snapshot | None
            try:
                processes = await self._in_thread(take_snapshot)
            except OSError as error:
                self._log.error("can't look at the processes, trying again: {reason}", reason=error.strerror)
                processes = None
            for one in waiting:
                one.callback(processes)
        self._looking = False

    async def _taskkill(self, tree: Tree) -> bool:
        import subprocess

        if tree.leader is None or created(tree.leader) != tree.created:
            return True
        command = ["taskkill", "/T", "/F", "/PID", str(tree.leader)]
        ended = await self._in_thread(lambda: subprocess.run(command, capture_output=True, timeout=_GIVE_UP_S))
        return bool(ended.returncode == 0)


def _signal(processes: Iterable[Found], number: int) -> None:
    for process in processes:
        # The pid may have been given to another since the snapshot.
        if created(process.pid) == process.created:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _signal_group(tree: Tree, number: int) -> None:
    """Signal what can be without a look: where descriptors are short, ending the first process gives some back."""
    if tree.leader is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(tree.leader) == tree.leader:
                os.killpg(tree.leader, number)


def _with_ancestors(pid: int, processes: Snapshot) -> set[int]:
    found: set[int] = set()
    while pid in processes and pid not in found:
        found.add(pid)
        pid = processes[pid].parent
    return found


if sys.platform == "linux":
    _SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    """What says nothing about the process."""
    _clock_of_processes = boot_clock

    def _look_at(pid: int, *, environment: bool = True) -> Found | None:
        """Read a process from /proc: one file where psutil reads several, and a start time no clock change moves."""
        try:
            with FileIO(f"/proc/{pid}/stat") as file:  # in a third of Path's time: it is read for each job
                stat = file.readall()
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise
            return None
        # The name, in parentheses, may hold anything.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            return None
        job, machine = _read_marks(pid) if environment else ("", "")
        return Found(pid, int(fields[1]), int(fields[3]), int(fields[19]) / _ticks(), job, machine)

    def _read_marks(pid: int) -> tuple[str, str]:
        try:
            content = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise
            return "", ""
        if MARK_JOB.encode() not in content:
            return "", ""
        pairs = dict(entry.partition(b"=")[::2] for entry in content.split(b"\0"))
        return tuple(pairs.get(name.encode(), b"").decode(errors="replace") for name in (MARK_JOB, MARK_MACHINE))  # type: ignore[return-value]

    @cache
    def _ticks() -> int:
        return os.sysconf("SC_CLK_TCK")

else:
    _clock_of_processes = time.time

    def _look_at(pid: int, *, environment: bool = True) -> Found | None:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            began, parent = process.create_time(), process.ppid()
        except psutil.Error:
            return None
        marks: dict[str, str] = {}
        session = 0
        with contextlib.suppress(psutil.Error, OSError):
            marks = process.environ() if environment else {}
        with contextlib.suppress(AttributeError, OSError):
            session = os.getsid(pid)
        return Found(pid, parent, session, began, marks.get(MARK_JOB, ""), marks.get(MARK_MACHINE, ""))
