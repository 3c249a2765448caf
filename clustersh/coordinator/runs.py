"""A run's life: recorded before anything is dispatched, started at most once, with exactly one outcome a job.

::

    request -> ledger (fsync) -> dispatch -> Started -> Ended -> ledger (fsync) -> acknowledged

Nothing here is undone when a caller goes away. After a restart every open job is asked about at its machine's next
link, never dispatched again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..trust.identity import Identity
from ..wire import units
from ..wire.jobs import Command, Outcome, OutputSummary, State
from ..wire.link import START_WITHIN_S, Acknowledge, Cancel, Ended, Hello, Start, Started, Welcome
from ..wire.output import RunsError, decode_runs
from ..wire.problems import Kind, Problem, ProblemError
from ..wire.rest import Cancelled, RunRequest
from . import history
from .fleet import Bus, Fleet
from .index import Index
from .ledger import Ledger
from .open_runs import JobEnd, OpenJob, OpenRun, RecentRuns
from .records import CancelRequested, JobEnded, MachineRef, Orphan, RunRefused, RunRequested
from .registry import Key, Registry
from .signals import wait_until

RETRY_S = (1.0, 30.0)
"""Seconds between attempts to record an outcome when the ledger can't be written: the first, and the longest."""


class RunBlobs(Protocol):
    """What a run's files need of the blob store."""

    async def hold(self, script: str, manifest: str) -> frozenset[str]:
        """Pin these ("" is none) and what the manifest names; return all. ProblemError where one is missing."""

    def let_go(self, blobs: frozenset[str]) -> None:
        """Take the pins away."""


class Runs:
    """Every run that is not over yet.

    *new_uuid* makes a UUIDv7, *now* gives seconds since 1970, *secret* keys the digests, which cover secrets too.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        index: Index,
        registry: Registry,
        fleet: Fleet,
        blobs: RunBlobs,
        new_uuid: Callable[[], str],
        now: Callable[[], float],
        secret: bytes,
    ) -> None:
        self._log = Logger()
        self._clock = clock
        self._ledger = ledger
        self._index = index
        self._registry = registry
        self._fleet = fleet
        self._bus: Bus = fleet
        self._blobs = blobs
        self._new_uuid = new_uuid
        self._now = now
        self._secret = secret
        self._open: dict[str, OpenRun] = {}
        self._recent = RecentRuns()
        self._requesting: dict[tuple[str, str], tuple[str, list[Deferred[str]]]] = {}
        registry.watch_ended(self._forgotten)

    async def load(self) -> None:
        """Read the open runs from the index, after a start."""
        for run in await self._index.ask(history.open_runs):
            if run.script or run.manifest:
                try:
                    run.open.blobs = await self._blobs.hold(run.script, run.manifest)
                except ProblemError as error:
                    self._log.warn("{uuid}: its files are gone: {reason}", uuid=run.open.uuid, reason=str(error))
            self._open[run.open.uuid] = run.open
            for machine_id, job in run.open.jobs.items():
                if self._registry.machine_by_id(machine_id) is None:
                    self._end(run.open, job, _lost("the machine was forgotten"))

    # -- asking for a run

    async def request(self, caller: Identity, key: str, asked: RunRequest) -> str:
        """Return the uuid of the run that *caller* asks for under *key*: the same one for the same request.

        Raises ProblemError: what was refused stays refused under that key.
        """
        digest = self._digest(asked)
        under_way = self._requesting.get((caller.id, key))
        if under_way is not None:
            _check_digest(under_way[0], digest)
            waiter: Deferred[str] = Deferred()
            under_way[1].append(waiter)
            return await waiter
        waiters: list[Deferred[str]] = []
        self._requesting[caller.id, key] = (digest, waiters)
        done: Deferred[str] = Deferred()
        waiters.append(done)
        self._spawn(self._request_once(caller, key, digest, asked, waiters))
        return await done

    async def _request_once(
        self, caller: Identity, key: str, digest: str, asked: RunRequest, waiters: list[Deferred[str]]
    ) -> None:
        """Answer all that ask for this run at once; the first of them going away changes nothing."""
        try:
            uuid = await self._find_or_make(caller, key, digest, asked)
        except ProblemError as error:
            for waiter in self._requesting.pop((caller.id, key))[1]:
                if not waiter.called:
                    waiter.errback(ProblemError.received(error.problem))
            return
        except BaseException:
            self._requesting.pop((caller.id, key))
            for waiter in waiters:
                if not waiter.called:
                    waiter.errback(ProblemError(Kind.INTERNAL, "the coordinator could not take the request"))
            raise
        for waiter in self._requesting.pop((caller.id, key))[1]:
            if not waiter.called:
                waiter.callback(uuid)

    async def _find_or_make(self, caller: Identity, key: str, digest: str, asked: RunRequest) -> str:
        known = await self._index.ask(lambda connection: history.run_of_key(connection, caller.id, key))
        if known is not None:
            _check_digest(known.digest, digest)
            if known.problem is not None:
                raise ProblemError.received(known.problem)
            return known.uuid
        uuid = self._new_uuid()
        try:
            machine = self._registry.machine(asked.target)
        except ProblemError as error:
            await self._refuse(caller, key, digest, asked, uuid, error.problem)
            raise
        script, files = asked.command.script, asked.files
        blobs = await self._blobs.hold(script.sha256 if script else "", files.sha256 if files else "")
        run = self._make_run(caller, key, digest, asked, uuid, machine, blobs)
        try:
            entry = await self._ledger.append(run.record)
        except ProblemError:
            self._blobs.let_go(blobs)
            raise
        run.requested = entry.time
        self._open[uuid] = run
        self._registry.used(machine.id)
        self._log.info(
            "{uuid} {client} on {machine}: {command}",
            uuid=uuid,
            client=caller.name,
            machine=machine.name,
            command=asked.command.text[:200],
        )
        await self._fleet.until_back(machine.id)
        self._dispatch(run, run.jobs[machine.id])
        return uuid

    def _make_run(
        self,
        caller: Identity,
        key: str,
        digest: str,
        asked: RunRequest,
        uuid: str,
        machine: Key,
        blobs: frozenset[str],
    ) -> OpenRun:
        reference = MachineRef(machine.name, machine.id)
        record = RunRequested(
            uuid=uuid,
            client=caller.name,
            client_id=caller.id,
            key=key,
            digest=digest,
            target=asked.target,
            machines=(reference,),
            command=asked.command,
            cwd=asked.cwd,
            env=tuple(sorted(asked.env)),
            timeout_s=asked.timeout_s,
            idle_timeout_s=asked.idle_timeout_s,
            stdin=asked.stdin,
            files=asked.files,
            keep_files=asked.keep_files,
        )
        return OpenRun(record, "", {machine.id: OpenJob(uuid, reference)}, asked, blobs)

    async def _refuse(
        self, caller: Identity, key: str, digest: str, asked: RunRequest, uuid: str, problem: Problem
    ) -> None:
        command = asked.command if len(asked.command.text) <= 4096 else Command(shell=asked.command.text[:4096])
        await self._ledger.append(RunRefused(uuid, caller.name, caller.id, key, digest, asked.target, command, problem))

    def _digest(self, asked: RunRequest) -> str:
        """Return a keyed hash of the canonical request: it covers the environment without giving it away."""
        canonical = msgspec.json.encode(asked, order="deterministic")
        return hmac.new(self._secret, canonical, hashlib.sha256).hexdigest()

    # -- dispatch

    def _dispatch(self, run: OpenRun, job: OpenJob) -> None:
        asked, run.request = run.request, None
        machine_id, epoch = job.machine.id, self._bus.epoch(job.machine.id)
        if job.end is not None or job.ending:
            return
        if job.cancelled:
            self._end(run, job, JobEnd(Outcome(State.CANCELLED, reason="cancelled before it started")))
            return
        if epoch is None or asked is None:
            self._end(run, job, JobEnd(Outcome(State.NOT_STARTED, reason=self._fleet.offline_reason(job.machine))))
            return
        job.epoch = epoch
        self._bus.send(machine_id, self._start_message(run, asked, epoch, machine_id))
        self._clock.callLater(START_WITHIN_S, self._start_overdue, run, job)

    def _start_message(self, run: OpenRun, asked: RunRequest, epoch: int, machine_id: str) -> Start:
        return Start(
            epoch=epoch,
            start_by=self._bus.clock(machine_id) + START_WITHIN_S,
            uuid=run.uuid,
            client=run.record.client,
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

    def _start_overdue(self, run: OpenRun, job: OpenJob) -> None:
        """The agent did not answer in time: it must not begin any more, but may have; only it can tell."""
        if not job.started and job.end is None:
            job.unconfirmed = True
            run.changed.fire()

    # -- what agents say

    async def linking(self, machine: Key, hello: Hello, epoch: int) -> Welcome:
        """Return what a machine that comes is told: its open jobs, each to be accounted for."""
        other_store = await self._registry.note_store(machine.id, hello.store)
        asked_about = []
        for run, job in self._open_on(machine.id):
            if job.epoch is None or job.epoch == epoch or job.ending:
                continue
            if other_store:
                self._end(run, job, _lost("the machine's job store is gone"))
            else:
                asked_about.append(job.uuid)
        return Welcome(epoch, machine.name, tuple(asked_about), self._ledger.head.witness)

    def started(self, machine_id: str, message: Started) -> None:
        """The agent has journalled the start."""
        run = self._open.get(message.uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        if run is None or job is None or job.ending or job.end is not None:
            return
        if not job.started:
            job.started = units.timestamp(self._now())
        job.unconfirmed = False
        if job.cancelled:
            self._bus.send(machine_id, Cancel(job.uuid))
        run.changed.fire()

    def ended(self, machine_id: str, message: Ended) -> None:
        """The agent reports an outcome, perhaps again."""
        try:
            _check_end(message)
        except ValueError as error:
            self._log.warn("{uuid}: a report that can't be: {reason}", uuid=message.uuid[:64], reason=str(error))
            return
        run = self._open.get(message.uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        if run is None or job is None or job.end is not None:
            self._spawn(self._ended_before(machine_id, message))
            return
        end = JobEnd(message.outcome, message.output, message.duration_s, message.head, message.head_runs)
        self._end(run, job, end)

    async def _ended_before(self, machine_id: str, message: Ended) -> None:
        """A report for a job that is not open: an old one again, an orphan, or another machine's."""
        uuid = message.uuid
        machines = await self._index.ask(lambda connection: history.machines_of(connection, uuid))
        machine = self._registry.machine_by_id(machine_id)
        if machine is None:
            return
        if machines is None:
            await self._ledger.append(Orphan(uuid, machine.name, machine_id, message.outcome))
        elif machine_id not in machines:
            self._log.warn("{machine} reports {uuid}, which is another machine's", machine=machine.name, uuid=uuid)
            return
        self._acknowledge(machine_id, uuid)

    # -- the end of a job

    def _end(self, run: OpenRun, job: OpenJob, end: JobEnd) -> None:
        if not job.ending:
            job.ending = True
            self._spawn(self._record_end(run, job, end))

    async def _record_end(self, run: OpenRun, job: OpenJob, end: JobEnd) -> None:
        record = JobEnded(
            job.uuid, job.machine.name, job.machine.id, end.outcome, end.output, end.duration_s, job.started
        )
        delay, longest = RETRY_S
        while True:
            try:
                entry = await self._ledger.append(record)
                break
            except ProblemError as error:
                self._log.error("{uuid}: its end waits to be recorded: {reason}", uuid=job.uuid, reason=str(error))
                await deferLater(self._clock, delay)
                delay = min(delay * 2, longest)
        job.end, job.finished, job.unconfirmed = end, entry.time, False
        self._log.info(
            "{uuid} on {machine}: {outcome}",
            uuid=job.uuid,
            machine=job.machine.name,
            outcome=describe(end.outcome),
        )
        if run.ended:
            self._open.pop(run.uuid, None)
            self._blobs.let_go(run.blobs)
            self._recent.add(run)
        run.changed.fire()
        self._acknowledge(job.machine.id, job.uuid)

    def _acknowledge(self, machine_id: str, uuid: str) -> None:
        self._bus.send(machine_id, Acknowledge(uuid, self._ledger.head.witness))

    def _forgotten(self, key: Key) -> None:
        for run, job in list(self._open_on(key.id)):
            self._end(run, job, _lost("the machine was forgotten"))

    def _open_on(self, machine_id: str) -> list[tuple[OpenRun, OpenJob]]:
        return [(run, run.jobs[machine_id]) for run in self._open.values() if machine_id in run.jobs]

    # -- asking about runs

    def find(self, uuid: str) -> OpenRun | None:
        """Return the run, if it is open or ended a moment ago."""
        return self._open.get(uuid) or self._recent.get(uuid)

    async def settle(self, uuid: str, seconds: float) -> OpenRun | None:
        """Wait up to *seconds* until nothing more can be awaited of the run; None where it is only in the index."""
        run = self.find(uuid)
        if run is not None:
            await wait_until(self._clock, run.changed, lambda: run.settled, seconds)
        return run

    async def cancel(self, caller: Identity, uuid: str, machine_id: str | None = None) -> Cancelled:
        """Ask for the end of the run's jobs (or of the one on that machine)."""
        run = self._open.get(uuid)
        jobs = [] if run is None else [job for job in run.jobs.values() if machine_id in (None, job.machine.id)]
        live = [job for job in jobs if job.end is None and not job.ending]
        if live:
            machines = tuple(job.machine for job in live)
            await self._ledger.append(CancelRequested(uuid, caller.name, caller.id, machines))
        for job in live:
            job.cancelled = True
            if job.epoch is not None:
                self._bus.send(job.machine.id, Cancel(uuid))
        ended = tuple(job.machine.name for job in jobs if job not in live)
        return Cancelled(uuid, tuple(job.machine.name for job in live), ended)

    def may_read_blob(self, machine_id: str, uuid: str, sha256: str) -> bool:
        """Whether an open job of that machine names that blob."""
        run = self._open.get(uuid)
        job = run.jobs.get(machine_id) if run is not None else None
        return run is not None and job is not None and job.end is None and sha256 in run.blobs

    def running(self) -> int:
        """How many runs are open."""
        return len(self._open)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: self._log.failure("a run's bookkeeping failed", failure=failure)
        )


def describe(outcome: Outcome) -> str:
    """Return *outcome* in a few words."""
    if outcome.exit_code is not None:
        return f"{outcome.state} (exit {outcome.exit_code})"
    if outcome.signal is not None:
        return f"{outcome.state} (signal {outcome.signal})"
    return f"{outcome.state} ({outcome.reason})"


def _check_digest(known: str, asked: str) -> None:
    if not hmac.compare_digest(known, asked):
        raise ProblemError(
            Kind.KEY_CONFLICT,
            "that idempotency key was used for another request",
            hint="choose another --key, or none",
        )


def _check_end(message: Ended) -> None:
    """Raise ValueError for an outcome that an agent can't have seen."""
    if message.outcome.state in (State.LOST, State.REFUSED):
        raise ValueError(f"{message.outcome.state} is the coordinator's to say")
    if sum(count for _, count in decode_runs(message.head_runs)) != len(message.head):
        raise RunsError("the run lengths don't fit the output's head")
    if (
        len(message.head) > message.output.total_bytes
        or min(message.output.stdout_bytes, message.output.stderr_bytes) < 0
    ):
        raise ValueError("the output's sizes don't fit")


def _lost(reason: str) -> JobEnd:
    return JobEnd(Outcome(State.LOST, reason=reason), OutputSummary())
