"""Runs that go in batches: what pacing.py decides is recorded, sent and ended here, also after a restart.

A batch is in the ledger before anything of it is sent, so that no later life sends it again. Nobody needs to wait for
such a run: it goes on without the client that asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..faultpoints import reached
from ..wire.jobs import Outcome, State
from ..wire.problems import Kind, ProblemError
from ..wire.rest import RunRequest
from .fleet import Fleet
from .index import Index
from .ledger import Ledger
from .ledger_files import Entry
from .open_runs import JobEnd, OpenRun, RunTable
from .outcomes import Outcomes
from .paced_history import EarlierRun, earlier_runs
from .pacing import Begin, Pacing, Stop, widest
from .patience import record_at_last
from .records import BatchBegun, JobEnded, RunRequested, RunStopped
from .runs import CANCELLED, Runs
from .signals import Signal

AWAY_S = 60.0
"""Seconds without a link after which a batch goes on without a machine, which counts as failed."""
LOOK_EVERY_S = 1.0
"""Seconds between looks at what a batch still waits for."""
_NAMED = 5


@dataclass
class _Drive:
    """A run on its way. *news* tells of its ends; *beginning*: a batch is being recorded and sent."""

    run: OpenRun
    pacing: Pacing
    news: Signal = field(default_factory=Signal)
    look_at: float = 0.0
    beginning: bool = False


class PacedRuns:
    """Every run that goes in batches and has something left to begin."""

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        index: Index,
        fleet: Fleet,
        table: RunTable,
        runs: Runs,
        outcomes: Outcomes,
        away_s: float = AWAY_S,
    ) -> None:
        self._log = Logger()
        self._clock = clock
        self._ledger = ledger
        self._index = index
        self._fleet = fleet
        self._table = table
        self._runs = runs
        self._outcomes = outcomes
        self._away_s = away_s
        self._drives: dict[str, _Drive] = {}
        self._stopping = False
        self._begun = Signal()
        ledger.subscribe(self._follow)

    def start(self, run: OpenRun) -> None:
        """Begin the run's first batch, and see to the others."""
        assert run.request is not None and run.request.pace is not None
        self._drive(_Drive(run, Pacing(list(run.jobs), run.request.pace)))

    async def load(self) -> None:
        """Go on with the runs from before a restart, which Runs has loaded."""
        for earlier in await self._index.ask(lambda connection: earlier_runs(connection, self._ledger.record_at)):
            run = self._table.open(earlier.record.uuid)
            if run is not None:
                self._go_on(run, earlier)

    async def stop(self) -> None:
        """Begin no more batches, and return when what is being begun is sent: a next life goes on."""
        self._stopping = True
        for drive in list(self._drives.values()):
            drive.news.fire()
        while any(drive.beginning for drive in self._drives.values()):
            await self._begun.wait(self._clock, LOOK_EVERY_S)

    def _go_on(self, run: OpenRun, earlier: EarlierRun) -> None:
        record = earlier.record
        assert record.pace is not None
        run.width = widest(len(run.jobs), record.pace)
        pacing = Pacing([machine.id for machine in record.machines], record.pace)
        drive = _Drive(run, pacing)
        pacing.begun(earlier.begun)
        for machine, completed in earlier.ended.items():
            pacing.ended(machine, completed=completed)
        for machine in (*pacing.left, *pacing.open):
            job = run.jobs[machine]
            if job.cancelled and job.epoch is None:
                self._outcomes.end(run, job, CANCELLED)
            if job.end is not None or (job.ending and job.epoch is None):  # since the index was asked
                pacing.ended(machine, completed=job.state is State.COMPLETED)
        run.request = _request_of(record)
        if earlier.stopped is not None:
            self._end_rest(drive, earlier.stopped)
        else:
            self._drive(drive, _cant_go_on(run, record))

    def _follow(self, entry: Entry) -> None:
        """The ledger has it that a job ended."""
        record = entry.record
        drive = self._drives.get(record.uuid) if isinstance(record, JobEnded) else None
        if drive is not None and isinstance(record, JobEnded):
            drive.pacing.ended(record.machine_id, completed=record.outcome.state is State.COMPLETED)
            drive.news.fire()

    def _drive(self, drive: _Drive, hindrance: str = "") -> None:
        self._drives[drive.run.uuid] = drive
        done = Deferred.fromCoroutine(self._go(drive, hindrance))
        done.addErrback(lambda failure: self._log.failure("a run goes no further", failure=failure))
        done.addBoth(lambda _: self._drives.pop(drive.run.uuid))

    async def _go(self, drive: _Drive, hindrance: str) -> None:
        """Begin batches until there is nothing left to begin; *hindrance* is why none can be."""
        pacing = drive.pacing
        while not pacing.over and not self._stopping:
            if hindrance:
                await self._stop(drive, hindrance)
            elif pacing.next() is None:
                await self._wait(drive)
            else:
                self._look(drive)  # once more: what has turned up is waited for
                step = pacing.next()
                if isinstance(step, Begin):
                    hindrance = await self._begin(drive, step)
                elif isinstance(step, Stop):
                    await self._stop(drive, _too_many(drive.run, step))

    async def _wait(self, drive: _Drive) -> None:
        """Return when there are news, or it is time to look what may have gone wrong."""
        await drive.news.wait(self._clock, LOOK_EVERY_S)
        if self._clock.seconds() >= drive.look_at:
            self._look(drive)

    def _look(self, drive: _Drive) -> None:
        drive.look_at = self._clock.seconds() + LOOK_EVERY_S
        jobs = drive.run.jobs
        drive.pacing.doubt(
            machine
            for machine in drive.pacing.open
            if jobs[machine].unconfirmed or self._fleet.away_s(machine) >= self._away_s
        )

    async def _begin(self, drive: _Drive, step: Begin) -> str:
        """Record the batch, then send it; return why that can't be, "" where it can."""
        run, pacing = drive.run, drive.pacing
        gone = [machine for machine in step.machines if run.jobs[machine].ending]
        if gone:  # cancelled or forgotten; the next look has others in their place
            for machine in gone:
                pacing.ended(machine, completed=False)
            return ""
        reached("batch-chosen")
        drive.beginning = True
        try:
            await self._ledger.append(BatchBegun(run.uuid, step.machines))
            reached("batch-recorded")
            pacing.begun(step.machines)
            self._runs.dispatch(run, [run.jobs[machine] for machine in step.machines])
            reached("batch-sent")
        except ProblemError as error:
            if error.problem.kind is not Kind.UNAVAILABLE:
                return str(error)
            self._stopping = True
        finally:
            drive.beginning = False
            self._begun.fire()
        return ""

    async def _stop(self, drive: _Drive, reason: str) -> None:
        """Record that the run goes no further; what is left ends."""
        drive.pacing.stop()
        await record_at_last(self._clock, self._ledger, RunStopped(drive.run.uuid, reason))
        reached("stop-recorded")
        self._end_rest(drive, reason)

    def _end_rest(self, drive: _Drive, reason: str) -> None:
        drive.run.stopped = reason
        for machine in drive.pacing.left:
            job = drive.run.jobs[machine]
            self._outcomes.end(drive.run, job, JobEnd(Outcome(State.NOT_STARTED, reason=reason)))


def _too_many(run: OpenRun, step: Stop) -> str:
    names = sorted(run.jobs[machine].machine.name for machine in step.failed)
    more = " ..." if len(names) > _NAMED else ""
    return f"stopped after {len(names)} of {step.begun} failed: {', '.join(names[:_NAMED])}{more}"


def _cant_go_on(run: OpenRun, record: RunRequested) -> str:
    """Return why what is left of a run from before a restart can't be sent, "" where it can."""
    if record.env:
        return "the coordinator was restarted, and keeps no environment values"
    if (record.command.script or record.files) and not run.blobs:
        return "the coordinator was restarted, and has the run's files no more"
    return ""


def _request_of(record: RunRequested) -> RunRequest:
    """Return what is sent of the request, as far as the record has it."""
    return RunRequest(
        target=record.target,
        command=record.command,
        cwd=record.cwd,
        timeout_s=record.timeout_s,
        idle_timeout_s=record.idle_timeout_s,
        stdin=record.stdin,
        files=record.files,
        keep_files=record.keep_files,
    )
