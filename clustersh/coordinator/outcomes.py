"""How jobs end: each has exactly one recorded outcome, and what agents report is acknowledged only after that."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..faultpoints import reached
from ..wire.jobs import HEAD_LIMIT, Outcome, OutputSummary, State
from ..wire.link import NEVER_SEEN, Acknowledge, Ended
from ..wire.output import check_runs, split
from ..wire.problems import ProblemError
from . import history
from .bus import Bus
from .index import Index
from .ledger import Ledger
from .limits import RateLimit
from .open_runs import JobEnd, OpenJob, OpenRun, RunTable
from .patience import RETRY_S, record_at_last
from .records import JobEnded, Orphan
from .registry import Registry

ORPHAN_RATE, ORPHAN_BURST = 1.0, 1000.0
"""Reports of unknown jobs, a second and at once, that are recorded of one machine; the rest is not acknowledged."""

LOGGED_OUTCOMES = 10
"""Different outcomes of one run that the log tells."""


class Outcomes:
    """Records how jobs ended.

    *let_go* takes the pins from a run's blobs; *complain* is told of a machine's name and what is wrong with a report.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        index: Index,
        registry: Registry,
        bus: Bus,
        table: RunTable,
        let_go: Callable[[frozenset[str]], None],
        complain: Callable[[str, str], None],
    ) -> None:
        self._log = Logger()
        self._clock = clock
        self._ledger = ledger
        self._index = index
        self._registry = registry
        self._bus = bus
        self._table = table
        self._let_go = let_go
        self._complain = complain
        self._orphans = RateLimit(clock.seconds, ORPHAN_RATE, ORPHAN_BURST)

    def end(self, run: OpenRun, job: OpenJob, end: JobEnd) -> None:
        """Have *end* recorded as the job's outcome, unless it has one already."""
        if not job.ending:
            job.ending = True
            job.stop_clock()
            self._spawn(self._record(run, job, end))

    async def lose(self, jobs: list[tuple[OpenRun, OpenJob]], reason: str) -> None:
        """Have each of *jobs* recorded as lost, unless it ends otherwise; return when all have an outcome."""
        for run, job in jobs:
            self.end(run, job, lost(reason))
        for run, job in jobs:
            while job.end is None:
                await run.telling_of(job).wait(self._clock, RETRY_S[1])

    def reported(self, machine_id: str, message: Ended) -> Deferred[None] | None:
        """An agent reports an outcome, perhaps again. What is returned fires when there may be another such report."""
        try:
            _check(message)
        except ValueError:
            self._complain(self._name(machine_id), "reports an outcome that can't be")
            return None
        found = self._table.job(message.uuid, machine_id)
        if found is None or found[1].end is not None:
            return self._spawn(self._reported_before(machine_id, message.uuid, message.outcome))
        if found[1].started and message.outcome == NEVER_SEEN:
            # It ran: the agent is a copy, or was restored from a backup.
            self.end(*found, lost("the machine's agent knows nothing of it any more"))
            return None
        run, job = found
        if not job.ending:
            output = message.output if len(run.jobs) == 1 else with_true_sums(message)
            head = run.heads.keep(message.head, message.head_runs)
            self.end(run, job, JobEnd(message.outcome, output, message.duration_s, head))
        return None

    async def _reported_before(self, machine_id: str, uuid: str, outcome: Outcome) -> None:
        """A report for a job that is not open: an old one again, an orphan, or another machine's."""
        machines = await self._index.ask(lambda connection: history.machines_of(connection, uuid))
        machine = self._registry.machine_by_id(machine_id)
        if machine is None:
            return
        if machines is None:
            if not self._orphans.take(machine_id):
                self._complain(machine.name, "reports too many unknown jobs")
                return
            await self._ledger.append(Orphan(uuid, machine.name, machine_id, outcome))
        elif machine_id not in machines and any(map(self._registry.machine_by_id, machines)):
            self._complain(machine.name, "reports another machine's job")
            return
        # A machine that was forgotten, and came back as another, reports what has had its outcome then.
        self._acknowledge(machine_id, uuid)

    async def _record(self, run: OpenRun, job: OpenJob, end: JobEnd) -> None:
        record = JobEnded(
            job.uuid, job.machine.name, job.machine.id, end.outcome, end.output, end.duration_s, job.started
        )
        entry = await record_at_last(self._clock, self._ledger, record)
        reached("end-recorded")
        run.finish(job, end, entry.time)
        self._table.ended(run, job)
        run.tell(job)
        self._acknowledge(job.machine.id, job.uuid)
        reached("end-acknowledged")
        if run.ended:  # last, since nobody waits for it
            self._let_go(run.blobs)
            self._log.info("{uuid} on {where}: {outcome}", uuid=run.uuid, where=_where(run), outcome=_outcome(run))

    def _acknowledge(self, machine_id: str, uuid: str) -> None:
        self._bus.send(machine_id, Acknowledge(uuid, self._ledger.head.witness))

    def _name(self, machine_id: str) -> str:
        machine = self._registry.machine_by_id(machine_id)
        return machine.name if machine is not None else machine_id

    def _spawn(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        done = Deferred.fromCoroutine(work)
        done.addErrback(self._failed)
        return done

    def _failed(self, failure: Any) -> None:
        if failure.check(ProblemError):
            self._log.error("an outcome is not recorded: {reason}", reason=failure.getErrorMessage())
        else:
            self._log.failure("a run's bookkeeping failed", failure=failure)


def _where(run: OpenRun) -> str:
    names = [job.machine.name for job in itertools.islice(run.jobs.values(), 2)]
    return names[0] if len(names) == 1 else f"{len(run.jobs)} machines"


def _outcome(run: OpenRun) -> str:
    """Return how all of the run's jobs ended, in a few words."""
    counts = Counter(describe(job.end.outcome) for job in run.jobs.values() if job.end is not None)
    if len(run.jobs) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common(LOGGED_OUTCOMES))


def describe(outcome: Outcome) -> str:
    """Return *outcome* in a few words."""
    if outcome.exit_code is not None:
        return f"{outcome.state} (exit {outcome.exit_code})"
    if outcome.signal is not None:
        return f"{outcome.state} (signal {outcome.signal})"
    return f"{outcome.state} ({outcome.reason})"


def with_true_sums(message: Ended) -> OutputSummary:
    """Return what a job printed with SHA-256s that are true wherever they can be known to be.

    Equal ones are shown once, so a lying machine could put its words into the others' mouths. What came whole is summed
    up here; of what did not, the heads must agree too (folding.py).
    """
    output = message.output
    if output.total_bytes > HEAD_LIMIT:
        return output
    sums = ("", "")
    if len(message.head) == output.total_bytes:
        parts = split(message.head, message.head_runs)
        if tuple(map(len, parts)) == (output.stdout_bytes, output.stderr_bytes):
            sums = (hashlib.sha256(parts[0]).hexdigest(), hashlib.sha256(parts[1]).hexdigest())
    return msgspec.structs.replace(output, stdout_sha256=sums[0], stderr_sha256=sums[1])


def lost(reason: str) -> JobEnd:
    """Return the end of a job that nobody can account for."""
    return JobEnd(Outcome(State.LOST, reason=reason), OutputSummary())


def _check(message: Ended) -> None:
    """Raise ValueError for an outcome that an agent can't have seen."""
    if message.outcome.state in (State.LOST, State.REFUSED):
        raise ValueError(f"{message.outcome.state} is the coordinator's to say")
    if len(message.head) > min(HEAD_LIMIT, message.output.total_bytes):
        raise ValueError("the output's sizes don't fit")
    check_runs(message.head, message.head_runs)
