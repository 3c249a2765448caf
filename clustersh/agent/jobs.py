"""The agent's decisions about jobs: which run, once; what the coordinator is told; and what is left of a crash.

A plain object: the store, the clock, what runs a job and the link to the coordinator are given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..cli.text import printable, shortened
from ..faultpoints import reached
from ..wire.ids import is_run_uuid
from ..wire.jobs import Outcome, State
from ..wire.link import (
    NEVER_SEEN,
    Acknowledge,
    Cancel,
    Ended,
    FromAgent,
    Start,
    Started,
    Stdin,
    StdinTaken,
    Welcome,
    Witness,
)
from ..wire.link import Failed as RequestFailed
from ..wire.problems import Kind
from ..wire.units import format_duration
from .records import JobDamagedError, JobRecord, ProcessMark, StoredJob, StoreError
from .runner import AGENT_STOPPED, CANCELLED, Result
from .stdin import Reply
from .store import JobStore

TOO_LATE = Outcome(State.NOT_STARTED, reason="the start came too late")
RESTARTED = Outcome(State.INTERRUPTED, reason="the agent restarted")
STORE_AGAIN_S = 5.0
_SHOWN = 200
_LONGEST_REASON = 1000

Send = Callable[[FromAgent], None]


class RunningJob(Protocol):
    """A job under way, as `runner.Runner` is."""

    async def run(self, note_process: Callable[[ProcessMark], None]) -> Result: ...

    def end(self, verdict: Outcome) -> None: ...

    def stdin(self, piece: Stdin, reply: Reply) -> None: ...


class _Link(NamedTuple):
    send: Send
    epoch: int | None


class Jobs:
    """The jobs of this machine.

    *clock* gives the boot clock's seconds, *now* the wall clock's; *make_job* makes what runs a Start that was
    journalled; *end_leftovers* ends the processes that a job of an earlier agent left, and returns how long it ran
    (seconds; 0 where that isn't known).
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: JobStore,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        make_job: Callable[[Start], RunningJob],
        end_leftovers: Callable[[StoredJob], Coroutine[Any, Any, float]],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._clock = clock
        self._now = now
        self._make_job = make_job
        self._end_leftovers = end_leftovers
        self._link: _Link | None = None
        self._journalling: set[str] = set()
        self._running: dict[str, RunningJob] = {}
        self._tasks: set[Deferred[None]] = set()
        self._stopping = False

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    # -- the link

    def link_up(self, send: Send) -> None:
        """Messages go to *send* from now on; nothing starts before its Welcome came."""
        self._link = _Link(send, None)

    def link_down(self, send: Send) -> None:
        """The link with *send* is gone; another may have taken its place."""
        if self._link is not None and self._link.send == send:
            self._link = None

    def received(self, message: Welcome | Start | Cancel | Acknowledge | Stdin) -> None:
        """Act on what the coordinator says."""
        match message:
            case Welcome():
                self._welcome(message)
            case Start():
                self._spawn(self._start(message))
            case Cancel(uuid=uuid):
                if uuid in self._running:
                    self._running[uuid].end(CANCELLED)
            case Acknowledge(uuid=uuid, witness=witness):
                reached("end-settled")
                self._store.acknowledged(uuid, witness)
            case Stdin():
                self._stdin(message)

    def _welcome(self, message: Welcome) -> None:
        if self._link is not None:
            self._link = self._link._replace(epoch=message.epoch)
            self._spawn(self._reconcile(message))

    async def _reconcile(self, message: Welcome) -> None:
        """Account for each job that the coordinator believes to be open, and tell again what it may not know."""
        again = [uuid for uuid in self._store.unacknowledged() if uuid not in set(message.open)]
        accounts = [self._account(uuid, message.witness) for uuid in (*message.open, *again)]
        await DeferredList([self._spawn(account) for account in accounts])

    async def _account(self, uuid: str, witness: Witness) -> None:
        if not is_run_uuid(uuid):
            self._log.error("an open job without a usable uuid is ignored")
        elif self._store.has(uuid):
            await self._report(uuid)
        else:
            await self._refuse(uuid, NEVER_SEEN, witness)

    async def _report(self, uuid: str) -> None:
        """Say how the job is: running, or its outcome. Whoever journals it now says that when it is durable."""
        if uuid in self._journalling:
            return
        try:
            ended = await self._store.ended(uuid)
        except JobDamagedError as error:
            # Nothing better will ever be known, and somebody waits for an answer.
            ended = Ended(uuid, _to_tell(Outcome(State.INTERRUPTED, reason=str(error))))
        except StoreError as error:
            self._log.error("job {uuid}: its record can't be read: {reason}", uuid=uuid, reason=str(error))
            return
        self._send(Started(uuid) if ended is None else ended)

    # -- starting

    async def _start(self, message: Start) -> None:
        reached("start-received")
        uuid = message.uuid
        if not is_run_uuid(uuid):
            self._log.error("a start without a usable uuid is ignored")
        elif self._store.has(uuid):
            await self._report(uuid)
        elif self._is_late(message) or self._stopping:
            await self._refuse(uuid, TOO_LATE, message.witness)
        elif problem := self._store.free_space_problem():
            await self._refuse(uuid, Outcome(State.NOT_STARTED, reason=problem), message.witness)
        else:
            await self._begin(message)

    def _is_late(self, message: Start) -> bool:
        return self._link is None or message.epoch != self._link.epoch or self._clock() > message.start_by

    async def _begin(self, message: Start) -> None:
        uuid = message.uuid
        self._journalling.add(uuid)
        try:
            await self._store.begin(JobRecord.of(message, self._now()))
        except StoreError as error:
            self._send(Ended(uuid, _to_tell(Outcome(State.NOT_STARTED, reason=str(error)))))
            return
        finally:
            self._journalling.discard(uuid)
        # Once more: the disk, or a sleeping machine, may have taken its time.
        if self._clock() > message.start_by or self._stopping:
            await self._end(uuid, Result(TOO_LATE, 0.0))
            return
        reached("start-journalled")
        self._send(Started(uuid))
        running = Deferred.fromCoroutine(self._run(message))
        self._log.info(  # which takes as long as the process takes to begin
            "job {uuid}: {client} runs {command}",
            uuid=uuid,
            client=message.client,
            command=shortened(printable(message.command.text), _SHOWN),
        )
        await running

    async def _run(self, message: Start) -> None:
        uuid = message.uuid
        job = self._running[uuid] = self._make_job(message)
        try:
            result = await job.run(lambda mark: self._spawned(uuid, mark))
        except Exception:
            self._log.failure("job {uuid}: internal error", uuid=uuid)
            result = Result(Outcome(State.INTERRUPTED, reason="internal error of the agent"), 0.0)
        finally:
            del self._running[uuid]
        await self._end(uuid, result)

    def _spawned(self, uuid: str, mark: ProcessMark) -> None:
        self._store.note_process(uuid, mark)
        reached("process-spawned")

    async def _refuse(self, uuid: str, outcome: Outcome, witness: Witness) -> None:
        self._journalling.add(uuid)
        try:
            ended = await self._store.refuse(uuid, outcome, witness)
        except StoreError as error:
            self._log.error("job {uuid}: its refusal can't be kept: {reason}", uuid=uuid, reason=str(error))
            ended = Ended(uuid, outcome)
        finally:
            self._journalling.discard(uuid)
        self._log.info("job {uuid}: not started: {reason}", uuid=uuid, reason=outcome.reason)
        self._send(ended)

    # -- ending

    async def _end(self, uuid: str, result: Result) -> None:
        """Make the outcome durable, however long the disk takes, and tell it."""
        reached("command-ended")
        while True:
            try:
                ended = await self._store.end(uuid, _to_tell(result.outcome), result.duration_s)
                break
            except StoreError as error:
                self._log.error("job {uuid}: its outcome can't be kept yet: {reason}", uuid=uuid, reason=str(error))
                if self._stopping:
                    return
                await deferLater(self._reactor, STORE_AGAIN_S)
        reached("end-journalled")
        self._send(ended)
        reached("end-told")
        self._log.info(
            "job {uuid}: {outcome}{after}",
            uuid=uuid,
            outcome=_in_words(ended.outcome),
            after=f" after {format_duration(ended.duration_s)}" if ended.duration_s else "",
        )

    def recover(self, left: Iterable[StoredJob]) -> None:
        """End what an earlier agent left running, processes included."""
        for job in left:
            self._spawn(self._recover(job))

    async def _recover(self, job: StoredJob) -> None:
        lasted = await self._end_leftovers(job)
        await self._end(job.uuid, Result(RESTARTED, lasted))

    async def stop(self) -> None:
        """End every job, and start none any more."""
        self._stopping = True
        for job in list(self._running.values()):
            job.end(AGENT_STOPPED)
        while self._tasks:
            await DeferredList(list(self._tasks))

    # -- stdin, and sending

    def _stdin(self, message: Stdin) -> None:
        job = self._running.get(message.uuid)
        if job is not None:
            job.stdin(message, self._send)
        elif message.uuid in self._journalling:
            self._send(RequestFailed(message.request, Kind.NOT_RUNNING.value, "the job has not started yet"))
        elif is_run_uuid(message.uuid) and self._store.has(message.uuid):
            self._send(StdinTaken(message.request, message.offset, closed=True))
        else:
            self._send(RequestFailed(message.request, Kind.UNKNOWN_RUN.value, "this machine has no such job"))

    def _send(self, message: FromAgent) -> None:
        """Send *message* if there is a link; what must not be lost is told again at the next one."""
        if self._link is not None:
            self._link.send(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(result: Failure | None) -> None:
            self._tasks.discard(task)
            if isinstance(result, Failure):
                self._log.failure("a job's step failed", result)

        task.addBoth(done)
        return task


def _to_tell(outcome: Outcome) -> Outcome:
    """Return *outcome* with a reason that travels: a path in it may be no Unicode, and longer than a message takes."""
    if outcome.reason is None:
        return outcome
    reason = outcome.reason.encode("utf-8", "backslashreplace").decode()
    return Outcome(outcome.state, reason=shortened(reason, _LONGEST_REASON))


def _in_words(outcome: Outcome) -> str:
    if outcome.exit_code is not None:
        return outcome.state.value if outcome.exit_code == 0 else f"{outcome.state} (exit {outcome.exit_code})"
    if outcome.signal is not None:
        return f"{outcome.state} (signal {outcome.signal})"
    return f"{outcome.state} ({outcome.reason})"
