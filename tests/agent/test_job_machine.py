"""A job's life against a plain model, with crashes between any two steps of it, and within them.

The jobs and their store are the real ones. What they do in threads waits in a list, in which the machine chooses: so
a crash may come before, between and within everything that touches the disk: a batch's write, the beginning of a new
journal, the removal of the old one. After a loss of power what was not synced is gone, too (power.py). The journal is
rewritten after every other job. The processes and the link are the test's.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from clustersh.agent.job_files import JobFiles
from clustersh.agent.jobs import RESTARTED, Jobs
from clustersh.agent.records import ProcessMark
from clustersh.agent.runner import CANCELLED, Result
from clustersh.agent.store import JobStore
from clustersh.group_commit import LATER_S
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command, Outcome, State
from clustersh.wire.link import Acknowledge, Cancel, Ended, Start, Started, Welcome, Witness

from ..power import HOW_MUCH, PowerLoss, Storage, TornDisk

WITNESS = Witness(1, "00")
ROTATE_AT = 400
make_durable = JobFiles.make_durable
new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)


class Task(NamedTuple):
    """Something that waits for its thread."""

    pool: object
    function: object
    words: tuple
    done: Deferred


class Threads(Clock):
    """The reactor, and the threads: what is theirs is done when the machine says so."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []

    def defer(self, pool, function, *words) -> Deferred:
        self.tasks.append(Task(pool, function, words, Deferred()))
        return self.tasks[-1].done

    def callFromThread(self, function, *words) -> None:
        self.tasks.append(Task(self, function, words, Deferred()))

    def ready(self) -> list[Task]:
        """Return what may be next: in a pool of one thread, and in the reactor, the order is kept."""
        seen: set[int] = set()
        found = []
        for task in self.tasks:
            if id(task.pool) not in seen or getattr(task.pool, "max", 1) > 1:
                found.append(task)
            seen.add(id(task.pool))
        return found

    def do(self, task: Task) -> None:
        self.tasks.remove(task)
        try:
            result = task.function(*task.words)
        except Exception:
            task.done.errback()
        else:
            task.done.callback(result)


class FakeJob:
    def __init__(self, message: Start) -> None:
        self.uuid = message.uuid
        self.done: Deferred[Result] = Deferred()

    async def run(self, note_process) -> Result:
        note_process(ProcessMark(1234, 5.0, "boot"))
        return await self.done

    def end(self, verdict: Outcome) -> None:
        if not self.done.called:
            self.done.callback(Result(verdict, 1.0))


class JobMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="job-machine-")
        self.storage = Storage(Path(self.place.name) / "store")
        self.flaws: list[str] = []
        globalLogPublisher.addObserver(self._heard)
        self.patches = contextlib.ExitStack()
        for name, instead in (
            ("agent.store.deferToThreadPool", lambda reactor, *words: self.threads.defer(*words)),
            ("group_commit.threading.Thread", mock.Mock()),
            ("group_commit.GroupCommit._hand_over", self._hand_over),
        ):
            self.patches.enter_context(mock.patch(f"clustersh.{name}", instead))
        self.patches.enter_context(self.storage.patched())
        self.patches.enter_context(mock.patch.object(JobFiles, "make_durable", self._make_durable))
        self.disk_fails = False
        # The model.
        self.clock = 100.0
        self.epoch = 0
        self.starts: dict[str, Start] = {}
        self.may_run: set[str] = set()
        self.ran: Counter[str] = Counter()
        self.running: dict[str, FakeJob] = {}
        self.confirmed: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.acknowledged: set[str] = set()
        self.safely_acknowledged: set[str] = set()
        self.linked = False
        self.told: list = []
        self._boot()

    def _hand_over(self, function, then) -> None:
        """As `GroupCommit._hand_over`: there is one thread, and one group commit in a store."""
        self.threads.defer(self.store._commits, function).addBoth(then)

    def _make_durable(self, uuids) -> None:
        if self.disk_fails:
            raise OSError(errno.EIO, "Input/output error")
        make_durable(self.store._files, uuids)

    def _heard(self, event) -> None:
        if "log_failure" in event:
            self.flaws.append(event["log_failure"].getTraceback())

    def teardown(self) -> None:
        self._drop()
        self.patches.close()
        globalLogPublisher.removeObserver(self._heard)
        self.place.cleanup()

    # -- lives

    def _boot(self) -> None:
        self.threads, self.jobs = Threads(), None
        self.storage.left = None
        self.linked, self.running, self.acknowledged_now = False, {}, set()
        self.store = JobStore(
            self.threads, self.storage.folder, reserve=0, now=lambda: 1000.0, disk=TornDisk(self.storage)
        )
        self.store._journal._rotate_at = self.store._journal._next_rotation = ROTATE_AT
        self.opening = Deferred.fromCoroutine(self.store.open())
        self.opening.addCallback(self._opened)
        self.opening.addErrback(lambda failure: self.flaws.append(failure.getTraceback()))

    def _opened(self, left) -> None:
        self.jobs = Jobs(
            self.threads,
            self.store,
            clock=lambda: self.clock,
            now=lambda: 1000.0,
            make_job=self._make_job,
            end_leftovers=self._end_leftovers,
        )
        self.jobs.recover(left)

    async def _end_leftovers(self, job) -> float:
        return 1.0

    def _make_job(self, message: Start) -> FakeJob:
        uuid = message.uuid
        self.ran[uuid] += 1
        assert self.ran[uuid] == 1, "a job ran twice"
        assert uuid not in self.outcomes, "a job ran although it had an outcome"
        assert self.clock <= message.start_by, "a job ran too late"
        assert uuid in self.may_run, "a job ran whose start came too late, or by an older link"
        job = self.running[uuid] = FakeJob(message)
        return job

    def _send(self, message) -> None:
        self.told.append(message)
        uuid = message.uuid
        if isinstance(message, Started):
            self.confirmed.add(uuid)
            assert uuid not in self.outcomes, "a job that had ended is said to run"
            return
        assert isinstance(message, Ended)
        known = self.outcomes.setdefault(uuid, message.outcome)
        assert known == message.outcome, "a job has two outcomes"
        if message.outcome.state is State.NOT_STARTED:
            assert not self.ran[uuid], "a job that ran is said not to have started"

    def _drop(self) -> None:
        """Let go of everything, as the end of a process does."""
        file = self.store._journal._file
        if file is not None:
            file.close()

    def _is_up(self) -> bool:
        return self.jobs is not None

    # -- what happens

    @rule(choose=st.integers(0, 9))
    def step(self, choose: int) -> None:
        ready = self.threads.ready()
        if ready:
            self.threads.do(ready[choose % len(ready)])

    @rule()
    def settle(self) -> None:
        for _ in range(2):
            self._do_all()
            self.threads.advance(LATER_S)
        self.safely_acknowledged |= self.acknowledged_now

    def _do_all(self) -> None:
        while self.threads.tasks:
            self.threads.do(self.threads.ready()[0])

    @rule(seconds=st.integers(1, 8))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds
        self.threads.advance(seconds)

    @precondition(_is_up)
    @rule(asked=st.sets(st.integers(0, 5)), unknown=st.booleans())
    def link_up(self, asked: set[int], unknown: bool) -> None:
        uuids = list(self.starts)
        open_jobs = [uuids[-1 - number] for number in sorted(asked) if number < len(uuids)]
        open_jobs += [new_uuid()] if unknown else []
        self.epoch += 1
        self.linked = True
        self.jobs.link_up(self._send)
        self.jobs.received(Welcome(self.epoch, "ws1", tuple(open_jobs), WITNESS))

    @precondition(_is_up)
    @rule(everything=st.booleans())
    def account(self, everything: bool) -> None:
        """A link-up that is waited for: what is open and what is not acknowledged is told, and nothing else.

        A coordinator that was itself restored from a backup asks about *everything*: nothing was forgotten.
        """
        self.settle()
        before = dict(self.outcomes)
        asked = [uuid for uuid in self.starts if everything or uuid not in self.outcomes or uuid in self.running]
        self.told = []
        self.epoch += 1
        self.linked = True
        self.jobs.link_up(self._send)
        self.jobs.received(Welcome(self.epoch, "ws1", tuple(asked), WITNESS))
        self.settle()
        told = {message.uuid for message in self.told}
        assert told >= set(asked), "an open job is not accounted for"
        assert told >= set(before) - self.acknowledged, "an outcome that is not acknowledged is not told again"
        assert not (told - set(asked)) & self.safely_acknowledged, "an acknowledged outcome is told again"
        ended = {message.uuid for message in self.told if isinstance(message, Ended)}
        for uuid in self.confirmed - set(self.running) - self.acknowledged:
            assert uuid in ended or uuid in self.outcomes, "a job that ran has no outcome"

    @precondition(lambda self: self.linked)
    @rule()
    def link_down(self) -> None:
        self.linked = False
        self.jobs.link_down(self._send)

    @precondition(lambda self: self.linked)
    @rule(seconds=st.sampled_from([-1, 0, 3, 100]), older=st.booleans())
    def start(self, seconds: int, older: bool) -> None:
        epoch = self.epoch - 1 if older and seconds == 3 else self.epoch
        message = Start(epoch, self.clock + seconds, new_uuid(), "anna@mba", Command(shell="true"), WITNESS)
        self.starts[message.uuid] = message
        self._send_start(message)

    @precondition(lambda self: self.linked and self.starts)
    @rule(number=st.integers(0, 30))
    def start_again(self, number: int) -> None:
        uuids = list(self.starts)
        self._send_start(self.starts[uuids[number % len(uuids)]])

    def _send_start(self, message: Start) -> None:
        if message.epoch == self.epoch and self.clock <= message.start_by:
            self.may_run.add(message.uuid)
        self.jobs.received(message)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 9), code=st.integers(0, 2))
    def command_exits(self, number: int, code: int) -> None:
        job = self.running.pop(sorted(self.running)[number % len(self.running)])
        if not job.done.called:
            job.done.callback(Result(Outcome.exited(code), 1.0))

    @precondition(lambda self: self.linked)
    @rule(count=st.integers(1, 3), filed=st.booleans())
    def whole_lives(self, count: int, filed: bool) -> None:
        """Jobs that come, go and are acknowledged, some before they are *filed*: the journal is soon without them."""
        for _ in range(count):
            self.start(100, older=False)
            self.settle()
            if self.running:
                self.command_exits(0, 0)
                self.settle() if filed else self._do_all()
            if self.outcomes:
                self.acknowledge(len(self.outcomes) - 1)

    @precondition(lambda self: self.linked and self.starts)
    @rule(number=st.integers(0, 30))
    def cancel(self, number: int) -> None:
        uuid = list(self.starts)[number % len(self.starts)]
        self.jobs.received(Cancel(uuid))
        if uuid in self.running and self.running[uuid].done.called:
            del self.running[uuid]

    @precondition(lambda self: self.linked and self.outcomes)
    @rule(number=st.integers(0, 30))
    def acknowledge(self, number: int) -> None:
        uuid = list(self.outcomes)[number % len(self.outcomes)]
        self.acknowledged.add(uuid)
        self.acknowledged_now.add(uuid)
        self.jobs.received(Acknowledge(uuid, WITNESS))

    # -- what goes wrong

    @rule(fails=st.booleans())
    def what_was_forgotten_cant_be_synced(self, fails: bool) -> None:
        """The old journal must stay until it can."""
        self.disk_fails = fails

    @rule(operations=st.integers(0, 20), choose=st.integers(0, 9))
    def killed(self, operations: int, choose: int) -> None:
        """kill -9, perhaps in the middle of something: what was written stays."""
        self._stop_within(operations, choose)
        self._boot()

    @rule(
        operations=st.integers(0, 20),
        choose=st.integers(0, 9),
        names=st.sampled_from(HOW_MUCH),
        contents=st.sampled_from(HOW_MUCH),
        seed=st.integers(0, 999),
        asked=st.booleans(),
    )
    def power_lost(self, operations: int, choose: int, names: str, contents: str, seed: int, asked: bool) -> None:
        """A loss of power, perhaps in the middle of something: what was not synced may be gone."""
        self._stop_within(operations, choose)
        self.storage.lose(Random(seed), names, contents)
        self.safely_acknowledged.clear()
        self._boot()
        if asked:
            self.settle()
            self.account(everything=True)

    @rule(operations=st.integers(0, 20), choose=st.integers(0, 9))
    def killed_then_power_lost(self, operations: int, choose: int) -> None:
        """What the next agent found and told is on the disk, although the last one was killed before it was synced."""
        self.killed(operations, choose)
        self.settle()
        self.account(everything=True)
        self.power_lost(0, 0, "nothing", "nothing", 0, asked=True)

    def _stop_within(self, operations: int, choose: int) -> None:
        self.storage.left = operations
        with contextlib.suppress(PowerLoss):
            for _ in range(operations):
                if ready := self.threads.ready():
                    self.threads.do(ready[choose % len(ready)])
                else:
                    self.threads.advance(LATER_S)
        self._drop()

    @invariant()
    def nothing_broke(self) -> None:
        assert not self.flaws, self.flaws[0]

    @invariant()
    def outcomes_fit_what_happened(self) -> None:
        for uuid, outcome in self.outcomes.items():
            if outcome in (RESTARTED, CANCELLED) or outcome.exit_code is not None:
                assert uuid in self.starts


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
