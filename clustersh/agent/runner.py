"""One running job: from what was asked for to its outcome."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..wire.jobs import Outcome, State
from ..wire.link import Start, Stdin
from ..wire.output import Stream
from ..wire.units import format_timeout
from .executors import ExecutorError
from .executors.chosen import Ender
from .fetch import Abandoned
from .launch import Launch, Launcher
from .process import ProcessListener, SpawnError
from .records import ProcessMark
from .stdin import Reply, StdinStream
from .tree import Tree, created
from .workspace import Workspace, WorkspaceError, Workspaces

CANCELLED = Outcome(State.CANCELLED, reason="cancelled")
AGENT_STOPPED = Outcome(State.INTERRUPTED, reason="the agent stopped")


class Writer(Protocol):
    """Where output goes."""

    def write(self, stream: Stream, data: bytes) -> None: ...


class Machinery(NamedTuple):
    """What every job on this machine is run with."""

    reactor: Any
    launcher: Launcher
    workspaces: Workspaces
    ender: Ender
    machine: str
    boot_id: str


class Result(NamedTuple):
    """How a job ended, and how long its process ran (seconds, monotonic)."""

    outcome: Outcome
    duration_s: float


class Runner(ProcessListener):
    """Runs one job, once: `run` returns its outcome, whatever happens."""

    def __init__(
        self,
        machinery: Machinery,
        start: Start,
        writer: Callable[[Callable[[bool], None], Callable[[str], None]], Writer],
    ) -> None:
        self._with = machinery
        self._start = start
        self._writer = writer(self._pressure, self._output_cut)
        self._stdin = StdinStream()
        self._transport: Any = None
        self._tree = Tree(start.uuid, machinery.machine)
        self._exited: Deferred[Outcome] = Deferred()
        self._gone: Outcome | None = None
        self._verdict: Outcome | None = None
        self._ending: Deferred[None] | None = None
        self._timers: list[IDelayedCall] = []
        self._last_output = 0.0
        self._spawned_at: float | None = None

    async def run(self, note_process: Callable[[ProcessMark], None]) -> Result:
        """Prepare, spawn, and wait for the end; *note_process* is told which process it is."""
        workspace = self._with.workspaces.of(self._start, lambda: self._verdict is None)
        try:
            outcome = await self._run(workspace, note_process)
        finally:
            self._stdin.close()
            self._stop_timers()
        duration = 0.0 if self._spawned_at is None else self._with.reactor.seconds() - self._spawned_at
        await workspace.remove()
        return Result(outcome, duration)

    def end(self, verdict: Outcome) -> None:
        """End the job's whole process tree, and make *verdict* its outcome, unless it is ending already."""
        if self._verdict is not None or self._gone is not None:
            return
        self._verdict = verdict
        self._stop_timers()
        if self._spawned_at is not None:
            self._ending = Deferred.fromCoroutine(self._end_tree())

    def stdin(self, piece: Stdin, reply: Reply) -> None:
        """Pass a piece of stdin on; a job without stdin takes none."""
        self._stdin.take(piece, reply)

    async def _run(self, workspace: Workspace, note_process: Callable[[ProcessMark], None]) -> Outcome:
        if not self._start.stdin:
            self._stdin.close()
        try:
            task = await workspace.prepare()
            launch = await self._with.launcher.ready(self._start, task)
            if self._verdict is not None:
                launch.abandon()
                return self._verdict
            self._spawn(launch)
        except (WorkspaceError, ExecutorError, SpawnError) as error:
            return self._verdict or Outcome(State.NOT_STARTED, reason=str(error))
        except Abandoned:
            return self._verdict or CANCELLED
        if self._tree.created is not None and self._tree.leader is not None:
            note_process(ProcessMark(self._tree.leader, self._tree.created, self._with.boot_id))
        outcome = await self._exited
        if self._ending is not None:
            # The answer says that nothing is left, so it waits for that.
            await self._ending
        return self._verdict or outcome

    def _spawn(self, launch: Launch) -> None:
        now = self._spawned_at = self._last_output = self._with.reactor.seconds()
        try:
            launch.spawn(self)
        except SpawnError:
            self._spawned_at = None
            raise
        if self._gone is None:
            self._start_timers(now)

    async def _end_tree(self) -> None:
        if not await self._with.ender.end(self._tree) and self._gone is None and self._verdict is not None:
            # Stuck in the kernel: its exit may never come.
            self._transport.loseConnection()
            self._exited_as(self._verdict)

    # -- limits

    def _start_timers(self, now: float) -> None:
        if self._start.timeout_s > 0:
            verdict = Outcome(State.TIMED_OUT, reason=f"timed out after {format_timeout(self._start.timeout_s)}")
            self._timers.append(self._with.reactor.callLater(self._start.timeout_s, self.end, verdict))
        if self._start.idle_timeout_s > 0:
            self._watch_idle(self._start.idle_timeout_s)

    def _watch_idle(self, wait_s: float) -> None:
        self._timers.append(self._with.reactor.callLater(wait_s, self._check_idle))

    def _check_idle(self) -> None:
        limit = self._start.idle_timeout_s
        left = self._last_output + limit - self._with.reactor.seconds()
        if left > 0:
            self._timers = [timer for timer in self._timers if timer.active()]
            self._watch_idle(left)
        else:
            self.end(Outcome(State.TIMED_OUT, reason=f"no output for {format_timeout(limit)}"))

    def _stop_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()

    # -- what the process tells

    def spawned(self, transport: Any) -> None:
        self._transport = transport
        self._tree = self._tree._replace(leader=transport.pid, created=created(transport.pid))
        if self._start.stdin:
            self._stdin.connect(transport)

    def output(self, stream: Stream, data: bytes) -> None:
        self._last_output = self._with.reactor.seconds()
        self._writer.write(stream, data)

    def stdin_taken(self) -> None:
        self._stdin.taken()

    def stdin_closed(self) -> None:
        self._stdin.close()

    def exited(self, code: int | None, number: int | None) -> None:
        self._exited_as(Outcome.exited(code or 0) if number is None else Outcome(State.FAILED, signal=number))

    def gone(self, outcome: Outcome) -> None:
        self._exited_as(outcome)

    def give_up(self, verdict: Outcome) -> None:
        self.end(verdict)

    def _exited_as(self, outcome: Outcome) -> None:
        if self._gone is None:
            self._gone = outcome
            self._stop_timers()
            self._stdin.close()
            self._exited.callback(outcome)

    def _output_cut(self, reason: str) -> None:
        """No more of its output can be kept: nobody would know what it does from now on."""
        self.end(Outcome(State.FAILED, reason=reason))

    def _pressure(self, paused: bool) -> None:
        if self._transport is None or os.name != "posix":
            return
        if paused:
            self._transport.pauseProducing()
        else:
            self._transport.resumeProducing()
