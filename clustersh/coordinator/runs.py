"""A run's life: recorded before anything is dispatched, started at most once, with exactly one outcome a job.

::

    request -> ledger (fsync) -> dispatch -> Started -> Ended -> ledger (fsync) -> acknowledged
    requests.py                  here                   outcomes.py

Nothing here is undone when a caller goes away. After a restart every open job is asked about at its machine's next
link, never dispatched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..faultpoints import reached
from ..trust.identity import Identity
from ..wire import units
from ..wire.jobs import Outcome, State
from ..wire.link import START_WITHIN_S, Cancel, Ended, Hello, Start, Started, Welcome
from ..wire.problems import ProblemError
from ..wire.rest import Cancelled, RunRequest
from . import history
from .bus import Bus
from .fleet import Fleet
from .index import Index
from .ledger import Ledger
from .open_runs import JobEnd, OpenJob, OpenRun, RunTable, Sent
from .outcomes import Outcomes, lost
from .records import CancelRequested
from .registry import Key, Registry
from .requests import RunBlobs
from .signals import wait_until

CANCELLED = JobEnd(Outcome(State.CANCELLED, reason="cancelled before it started"))
GATHER_S = 0.02
"""Seconds that the news of an end waits for others to go with it."""
SETTLED_S = 1.0
"""Seconds to wait for the next end where none may come: those who ask again and again do it no faster."""


class Runs:
    """Every run that is not over yet: its dispatch, and what its agents say. *now* gives seconds since 1970."""

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        index: Index,
        registry: Registry,
        fleet: Fleet,
        blobs: RunBlobs,
        table: RunTable,
        outcomes: Outcomes,
        now: Callable[[], float],
    ) -> None:
        self._log = Logger()
        self._clock = clock
        self._ledger = ledger
        self._index = index
        self._registry = registry
        self._fleet = fleet
        self._bus: Bus = fleet
        self._blobs = blobs
        self._table = table
        self._outcomes = outcomes
        self._now = now
        registry.watch_ended(self._forgotten)

    async def load(self) -> None:
        """Read the open runs from the index, after a start."""
        for run in await self._index.ask(history.open_runs):
            if run.script or run.manifest:
                try:
                    run.open.blobs = await self._blobs.hold(run.script, run.manifest)
                except ProblemError as error:
                    self._log.warn("{uuid}: its files are gone: {reason}", uuid=run.open.uuid, reason=str(error))
            self._table.add_earlier(run.open)
            for machine_id, job in run.open.jobs.items():
                if self._registry.machine_by_id(machine_id) is None:
                    self._outcomes.end(run.open, job, _forgotten(job))

    # -- dispatch

    def start(self, run: OpenRun) -> None:
        """Send the run to all of its machines."""
        self.dispatch(run, list(run.jobs.values()))

    def dispatch(self, run: OpenRun, jobs: Iterable[OpenJob]) -> None:
        """Send these of the run's jobs, none twice; machines that are reconnecting are waited for, each by itself."""
        sent = []
        for job in jobs:
            if self._fleet.status(job.machine.id) == "reconnecting":
                waiting = Deferred.fromCoroutine(self._dispatch_later(run, job))
                waiting.addErrback(lambda failure: self._log.failure("a start failed", failure=failure))
            elif self._send(run, job):
                sent.append(job)
        if sent:
            Sent(self._clock, run, sent)

    async def _dispatch_later(self, run: OpenRun, job: OpenJob) -> None:
        await self._fleet.until_back(job.machine.id)
        if self._send(run, job):
            Sent(self._clock, run, [job])

    def _send(self, run: OpenRun, job: OpenJob) -> bool:
        """Send one job, unless it can't be: then it has ended."""
        asked = run.taken_request()
        machine_id, epoch = job.machine.id, self._bus.epoch(job.machine.id)
        if job.ending:
            return False
        if epoch is None or asked is None:
            self._outcomes.end(
                run, job, JobEnd(Outcome(State.NOT_STARTED, reason=self._fleet.offline_reason(job.machine)))
            )
            return False
        job.epoch = epoch
        self._bus.send(machine_id, self._start_message(run, asked, epoch, machine_id))
        reached("run-dispatched")
        return True

    def _start_message(self, run: OpenRun, asked: RunRequest, epoch: int, machine_id: str) -> Start:
        return Start(
            epoch=epoch,
            start_by=self._bus.clock(machine_id) + START_WITHIN_S,
            uuid=run.uuid,
            client=run.client,
            command=asked.command,
            witness=self._ledger.head.witness,
            cwd=asked.cwd,
            env=asked.env,
            timeout_s=asked.timeout_s,
            idle_timeout_s=asked.idle_timeout_s,
            stdin=asked.stdin,
            files=asked.files,
            keep_files=asked.keep_files,
        )

    # -- what agents say

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> Welcome:
        """Return what a machine that comes is told: its open jobs, each to be accounted for."""
        earlier = [(run, job) for run, job in self._table.on(machine.id) if job.epoch not in (None, epoch)]
        if self._registry.has_other_store(machine.id, hello.store):
            # Recorded before the new store is: else a crash in between would make them look as if never started.
            await self._outcomes.lose(earlier, "the machine's job store is gone")
        await self._registry.note_store(machine.id, hello.store)
        asked_about = tuple(job.uuid for _, job in earlier if not job.ending)
        return Welcome(epoch, machine.name, asked_about, self._ledger.head.witness)

    def started(self, machine_id: str, message: Started) -> None:
        """The agent has journalled the start."""
        reached("start-heard")
        found = self._table.job(message.uuid, machine_id)
        if found is None or found[1].ending:
            return
        run, job = found
        run.confirm(job, units.timestamp(self._now()))
        if job.cancelled:
            self._bus.send(machine_id, Cancel(job.uuid))

    def ended(self, machine_id: str, message: Ended) -> Deferred[None] | None:
        """The agent reports an outcome, perhaps again."""
        reached("end-heard")
        return self._outcomes.reported(machine_id, message)

    def _forgotten(self, key: Key) -> None:
        for run, job in self._table.on(key.id):
            self._outcomes.end(run, job, _forgotten(job))

    # -- asking about runs

    def find(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is open or ended a moment ago."""
        return self._table.find(uuid)

    async def settle(self, uuid: str, seconds: float) -> OpenRun | None:
        """Wait up to *seconds* until nothing more can be awaited of the run; None where it is only in the index."""
        run = self.find(uuid)
        if run is not None:
            await wait_until(self._clock, run.settling, lambda: run.settled, seconds)
        return run

    async def settle_job(self, uuid: str, machine_id: str, seconds: float) -> None:
        """Wait up to *seconds* until nothing more can be awaited of that one job."""
        run = self.find(uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        if run is not None and job is not None:
            signal = run.telling_of(job)
            await wait_until(self._clock, signal, lambda: job.end is not None or job.unconfirmed, seconds)

    async def more_ends(self, uuid: str, after: int, seconds: float) -> None:
        """Wait up to *seconds* until more than *after* of the run's jobs have ended, or it is known of others whether
        they began."""
        run = self.find(uuid)
        if run is None or run.ended or len(run.order) > after:
            return
        if run.settled:
            seconds = min(seconds, SETTLED_S)
        doubts = run.doubts
        came = await wait_until(
            self._clock, run.changed, lambda: len(run.order) > after or run.ended or run.doubts != doubts, seconds
        )
        if came and not run.settled:
            await deferLater(self._clock, GATHER_S)

    async def cancel(self, caller: Identity, uuid: str, machine_id: str | None = None) -> Cancelled:
        """Ask for the end of the run's jobs (or of the one on that machine); what was never sent ends at once."""
        run = self.find(uuid)
        if run is None:
            ended_jobs = await self._index.ask(lambda connection: history.machines(connection, uuid))
            return Cancelled(uuid, (), tuple(each.name for each in ended_jobs if machine_id in (None, each.id)))
        jobs = run.jobs.values() if machine_id is None else [run.jobs[machine_id]]
        live = [job for job in jobs if not job.ending]
        ended = tuple(job.machine.name for job in jobs if job.ending)
        if live:
            machines = tuple(job.machine for job in live)
            await self._ledger.append(CancelRequested(uuid, caller.name, caller.id, machines))
            reached("cancel-recorded")
            for job in live:
                job.cancelled = True
                if job.epoch is None:
                    self._outcomes.end(run, job, CANCELLED)
                else:
                    self._bus.send(job.machine.id, Cancel(uuid))
        return Cancelled(uuid, tuple(job.machine.name for job in live), ended)

    def may_read_blob(self, machine_id: str, uuid: str, sha256: str) -> bool:
        """Whether an open job of that machine names that blob."""
        found = self._table.job(uuid, machine_id)
        return found is not None and found[1].end is None and sha256 in found[0].blobs


def _forgotten(job: OpenJob) -> JobEnd:
    """Return how a job ends whose machine was forgotten."""
    reason = "the machine was forgotten"
    return lost(reason) if job.epoch is not None else JobEnd(Outcome(State.NOT_STARTED, reason=reason))
