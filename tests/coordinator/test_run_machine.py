"""A run's life on the coordinator against a plain model, with crashes between any two steps of it, and within them.

The ledger, the index and all that decides are the real ones. What they do in threads waits in a list, in which the
machine chooses: so a crash may come before, between and within everything that touches the disk, and after a loss of
power what was not synced is gone (power.py). Clients ask again under their keys. The agent is the test's: it keeps
what it knows through every crash, its messages come late, twice or never, and sometimes it changes its mind. Runs are
for one machine or for several; each of those has an agent, and none knows of the others. Some go in batches.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from clustersh.group_commit import LATER_S
from clustersh.wire.fleet import Pace
from clustersh.wire.jobs import Command, Outcome, State
from clustersh.wire.link import NEVER_SEEN, START_WITHIN_S, Acknowledge, Cancel, Hello, Start, Welcome
from clustersh.wire.problems import ProblemError
from clustersh.wire.rest import RunRequest

from ..power import HOW_MUCH, PowerLoss, Storage
from .world import JOSHUA, Agent, World

MACHINES = ("ws1", "ws2", "ws3")
TARGETS = ("ws1", "ws2,ws3", "ws3,ws1", "all")
PACES = (None, Pace(canary=1), None, Pace(rolling="1", max_failures="100%"))
JobName = tuple[str, str]
"""A machine's name, and a run's uuid."""
OUTCOMES = (Outcome.exited(0), Outcome.exited(3), Outcome(State.CANCELLED, reason="cancelled"))


class Threads:
    """The threads of a life: what is theirs is done when the machine says so, each thread's in order."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Any, Any, Any]] = []

    def add(self, thread: Any, function: Any, then: Any) -> None:
        self.tasks.append((thread, function, then))

    def do(self, number: int) -> None:
        first: dict[int, Any] = {}
        for task in self.tasks:
            first.setdefault(id(task[0]), task)
        ready = list(first.values())
        if not ready:
            return
        task = ready[number % len(ready)]
        self.tasks.remove(task)
        try:
            result = task[1]()
        except Exception:
            result = Failure()
        task[2](result)


class RunMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="run-machine-")
        self.folder = Path(self.place.name)
        self.storage = Storage(self.folder / "ledger")
        self.flaws: list[str] = []
        globalLogPublisher.addObserver(self._heard)
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(self.storage.patched())
        self.patches.enter_context(mock.patch("clustersh.group_commit.threading.Thread", mock.Mock()))
        self.patches.enter_context(
            mock.patch(
                "clustersh.group_commit.GroupCommit._hand_over",
                lambda commits, function, then: self.threads.add(commits, function, then),
            )
        )
        self.clock = Clock()
        # The model: what clients were told, and what the agents know.
        self.uuids: dict[str, str] = {}
        self.targets: dict[str, str] = {}
        self.starts: Counter[JobName] = Counter()
        self.jobs: dict[JobName, Outcome | None] = {}
        self.reported: dict[JobName, list[Outcome]] = {}
        self.told: dict[JobName, Outcome] = {}
        self.acknowledged: set[JobName] = set()
        self._boot()
        for name in MACHINES:
            self._wait_for(self.world.join(name))
        self.come_back()

    def _heard(self, event: dict[str, Any]) -> None:
        if "log_failure" in event:
            self.flaws.append(event["log_failure"].getTraceback())

    def teardown(self) -> None:
        self._drop()
        self.patches.close()
        globalLogPublisher.removeObserver(self._heard)
        self.place.cleanup()

    # -- lives

    def _boot(self) -> None:
        self.storage.left = None
        self.threads = Threads()
        self.agents: dict[str, Agent] = {}
        self.inbox: list[tuple[str, Any]] = []
        self.world = World(self.folder, self.clock, self.clock)
        self._wait_for(self.world.load())
        self.asking: list[Deferred[None]] = []

    def _drop(self) -> None:
        """Let go of everything, as the end of a process does."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.world.ledger._close()
        self.world.index._close()

    def _wait_for(self, work: Any) -> None:
        done = Deferred.fromCoroutine(work)
        self.settle()
        assert done.called
        done.addErrback(lambda failure: self.flaws.append(failure.getTraceback()))

    @rule()
    def settle(self) -> None:
        for _ in range(2):
            while self.threads.tasks:
                self.threads.do(0)
            self.clock.advance(LATER_S)

    @rule(number=st.integers(0, 3))
    def step(self, number: int) -> None:
        self.threads.do(number)

    @rule(seconds=st.sampled_from([1.0, START_WITHIN_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- the client

    @rule(number=st.integers(0, 9), again=st.booleans(), where=st.sampled_from(TARGETS))
    def ask(self, number: int, again: bool, where: str) -> None:
        """Ask for a run, perhaps once more."""
        number = number if again else len(self.uuids)
        key, pace = f"key-{number}", PACES[number % len(PACES)]
        asked = RunRequest(self.targets.setdefault(key, where), Command(shell=key), pace=pace)
        self.asking.append(Deferred.fromCoroutine(self._ask(key, asked)))

    async def _ask(self, key: str, asked: RunRequest) -> None:
        uuid = await self.world.requests.take(JOSHUA, key, asked)
        assert self.uuids.setdefault(key, uuid) == uuid, "one key, two runs"
        assert self._is_safe(uuid, "run"), "a client was told of a run that is not durable"

    @precondition(lambda self: self.uuids)
    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        uuids = sorted(self.uuids.values())
        self.asking.append(Deferred.fromCoroutine(self._cancel(uuids[number % len(uuids)])))

    async def _cancel(self, uuid: str) -> None:
        with contextlib.suppress(ProblemError):
            await self.world.runs.cancel(JOSHUA, uuid)

    # -- the agent

    @rule(name=st.sampled_from(MACHINES))
    def link_up(self, name: str) -> None:
        self._forget_way(name)
        agent = self.agents[name] = Agent(self.world, name)
        world = self.world
        # What is left of a coordinator that was killed reaches nobody.
        agent.link.send = lambda message: self._sent(name, message) if world is self.world else None
        hello = Hello("1", "instance", "store", 1000.0 + self.clock.seconds())
        self.asking.append(Deferred.fromCoroutine(self.world.fleet.hello(agent.link, hello)))

    def _forget_way(self, name: str) -> None:
        """What is still on its way to that machine is lost."""
        self.inbox = [(to, message) for to, message in self.inbox if to != name]

    def _sent(self, name: str, message: Any) -> None:
        """The coordinator sends *message*: what it implies must be on the disk by now."""
        if isinstance(message, Start):
            self.starts[name, message.uuid] += 1
            assert self.starts[name, message.uuid] == 1, "a job is dispatched twice"
            assert self._is_safe(message.uuid, "run"), "a run is dispatched before it is durable"
            if PACES[int(message.command.text.removeprefix("key-")) % len(PACES)]:
                self._is_of_a_batch(name, message.uuid)
        elif isinstance(message, Acknowledge):
            assert self._is_safe(message.uuid, "ended", name), "an outcome is acknowledged before it is durable"
        self.inbox.append((name, message))

    def _is_of_a_batch(self, name: str, uuid: str) -> None:
        """A start of a run that goes in batches is being sent: none else of it runs, as far as is known."""
        records = [record for record in _records(self.storage.safe()) if record.get("uuid") == uuid]
        batches = [record["machine_ids"] for record in records if record["is"] == "batch"]
        assert batches and self.world.registry.machine(name).id in batches[-1], "a start that is of no recorded batch"
        assert all(record["is"] != "stopped" for record in records), "a start after the run was stopped"
        ended = {record["machine_id"] for record in records if record["is"] == "ended"}
        doubted = self.world.runs.find(uuid).unconfirmed  # type: ignore[union-attr]
        for machine_id in (each for batch in batches[:-1] for each in batch):
            away = self.world.fleet.epoch(machine_id) is None
            assert machine_id in ended or machine_id in doubted or away, "a batch begins before the last is over"

    @rule()
    def come_back(self) -> None:
        """The machines come, and all talk until there is nothing more to say."""
        self.settle()
        for name in MACHINES:
            self.link_up(name)
        self.settle()
        self._hear_all()

    @precondition(lambda self: self.agents)
    @rule(outcomes=st.tuples(*[st.sampled_from(OUTCOMES)] * len(MACHINES)), where=st.sampled_from(TARGETS))
    def whole_run(self, outcomes: tuple[Outcome, ...], where: str) -> None:
        """A run without any trouble."""
        self.ask(0, again=False, where=where)
        self.settle()
        self._hear_all()
        for number, outcome in enumerate(outcomes[: len(self.jobs)]):
            self.ends(number, outcome, tells=True)

    @precondition(lambda self: self.agents)
    @rule(name=st.sampled_from(MACHINES))
    def link_down(self, name: str) -> None:
        agent = self.agents.pop(name, None)
        if agent is not None:
            self.world.fleet.closed(agent.link)
            self._forget_way(name)

    @precondition(lambda self: self.inbox)
    @rule(number=st.integers(0, 9), silent=st.booleans())
    def deliver(self, number: int, silent: bool) -> None:
        """One of the agents hears its next message, and may say nothing of it yet."""
        waiting = list(dict.fromkeys(name for name, _ in self.inbox))
        name = waiting[number % len(waiting)]
        next_one = next(place for place, (to, _) in enumerate(self.inbox) if to == name)
        _, message = self.inbox.pop(next_one)
        if isinstance(message, Welcome):
            own = [uuid for machine, uuid in self.jobs if machine == name and (machine, uuid) not in self.acknowledged]
            for uuid in (*message.open, *own):
                self.jobs.setdefault((name, uuid), NEVER_SEEN)
                self._say((name, uuid))
        elif isinstance(message, Start | Acknowledge | Cancel):
            self._hear_of_job((name, message.uuid), message, silent)

    def _hear_of_job(self, job: JobName, message: Start | Acknowledge | Cancel, silent: bool) -> None:
        if isinstance(message, Start):
            assert job not in self.jobs or self.jobs[job] == NEVER_SEEN
            self.jobs.setdefault(job, None)
            if not silent:
                self._say(job)
        elif job not in self.jobs:
            assert not self.starts[job], "an agent is told of the end of a job that it was sent and never heard of"
        elif isinstance(message, Acknowledge):
            assert self.jobs[job] is not None, "what has not ended is acknowledged"
            self.acknowledged.add(job)
        elif self.jobs.get(job, NEVER_SEEN) is None:
            self.jobs[job] = OUTCOMES[2]
            self._say(job)

    @precondition(lambda self: self.agents and self.jobs)
    @rule(number=st.integers(0, 9))
    def say(self, number: int) -> None:
        """An agent tells how a job is, perhaps once more."""
        self._say(sorted(self.jobs)[number % len(self.jobs)])

    def _say(self, job: JobName) -> None:
        agent = self.agents.get(job[0])
        if agent is None:
            return
        outcome = self.jobs[job]
        if outcome is None:
            agent.started(job[1])
        else:
            self.reported.setdefault(job, []).append(outcome)
            agent.ended(job[1], outcome)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 3), outcome=st.sampled_from(OUTCOMES), tells=st.booleans())
    def ends(self, number: int, outcome: Outcome, tells: bool) -> None:
        """A job ends; a lying agent's may end in another way later."""
        job = sorted(self.jobs, key=lambda job: (job[1], job[0]), reverse=True)[number % len(self.jobs)]
        self.jobs[job] = outcome
        if tells:
            self._say(job)

    # -- crashes

    @rule(operations=st.integers(0, 6), number=st.integers(0, 3), back=st.booleans())
    def killed(self, operations: int, number: int, back: bool) -> None:
        """kill -9, perhaps in the middle of something: what was written stays."""
        self._stop_within(operations, number)
        self._boot()
        if back:
            self.come_back()

    @rule(
        operations=st.integers(0, 6),
        number=st.integers(0, 3),
        names=st.sampled_from(HOW_MUCH),
        contents=st.sampled_from(HOW_MUCH),
        seed=st.integers(0, 999),
        index=st.booleans(),
        back=st.booleans(),
    )
    def power_lost(
        self, operations: int, number: int, names: str, contents: str, seed: int, index: bool, back: bool
    ) -> None:
        """A loss of power, perhaps in the middle of something; the *index* may be gone with it."""
        self._stop_within(operations, number)
        self.storage.lose(Random(seed), names, contents)
        if not index:
            for path in self.folder.glob("index.sqlite*"):
                path.unlink()
        self._boot()
        if back:
            self.come_back()

    def _stop_within(self, operations: int, number: int) -> None:
        self.storage.left = operations
        with contextlib.suppress(PowerLoss):
            for _ in range(operations):
                self.threads.do(number)
        self._drop()

    # -- what must hold

    def _is_safe(self, uuid: str, kind: str, machine: str | None = None) -> bool:
        return any(
            record["is"] == kind and record["uuid"] == uuid and machine in (None, record.get("machine"))
            for record in _records(self.storage.safe())
        )

    @rule()
    def all_is_well_in_the_end(self) -> None:
        """The machines come back, everything is told and ends: each job has one outcome, and its agent knows that."""
        self.settle()
        self.clock.advance(START_WITHIN_S)
        for name in MACHINES:
            self.link_up(name)
        self.settle()
        self._hear_all()
        for _ in range(1 + len(MACHINES)):  # one batch after the other
            for job, outcome in self.jobs.items():
                self.jobs[job] = outcome or OUTCOMES[0]
            for job in set(self.jobs) - self.acknowledged:
                self._say(job)
            self.settle()
            self._hear_all()
        ended = _outcomes(self.storage.safe())
        assert set(self.uuids.values()) <= {uuid for _, uuid in ended}, "a run without an outcome"
        for job in _requested(self.storage.safe()):
            assert job in ended, "a job without an outcome"
        assert set(self.jobs) <= self.acknowledged, "the agent was never told that its outcome is kept"
        assert not len(self.world.table), "a run that has ended is held as open"
        for name in MACHINES:
            assert not self.world.table.on(self.agents[name].key.id), "a job that has ended is held as open"

    @invariant()
    def runs_tell_the_truth(self) -> None:
        """What is counted of a run in memory is so."""
        for uuid in self.uuids.values():
            run = self.world.table.find(uuid)
            if run is not None:
                jobs = run.jobs.values()
                ends = {job.machine.id for job in jobs if job.end is not None}
                assert len(run.order) == len(set(run.order)) and set(run.order) == ends
                assert set(run.unconfirmed) == {job.machine.id for job in jobs if job.unconfirmed}
                assert not ends & set(run.unconfirmed)
                assert run.settled == all(job.end is not None or job.unconfirmed for job in jobs)

    def _hear_all(self) -> None:
        while self.inbox:
            self.deliver(0, silent=False)
            self.settle()

    @invariant()
    def nothing_broke(self) -> None:
        for each in self.asking:
            each.addErrback(lambda failure: self.flaws.append(failure.getTraceback()))
        self.asking = [each for each in self.asking if not each.called]
        assert not self.flaws, self.flaws[0]

    @invariant()
    def an_outcome_is_one_and_stays(self) -> None:
        ended = _outcomes(self.storage.safe())
        for name, outcome in ended.items():
            assert self.told.setdefault(name, outcome) == outcome, "an outcome changed"
            theirs = outcome.state in (State.COMPLETED, State.FAILED, State.CANCELLED) and outcome.reason != (
                "cancelled before it started"
            )
            assert not theirs or outcome in self.reported[name], "an outcome that nobody reported"
            if outcome.state is State.NOT_STARTED and outcome != NEVER_SEEN:
                assert not self.starts[name], "a job that was dispatched is said not to have started"
        for name in self.told:
            assert name in ended, "an outcome that was durable is gone"
        for uuid in self.uuids.values():
            run = self.world.table.find(uuid)
            for job in run.jobs.values() if run else ():
                durable = ended.get((job.machine.name, uuid))
                assert job.end is None or job.end.outcome == durable, "a client is told what is not durable"


def _records(files: dict[str, bytes]) -> list[dict[str, Any]]:
    lines = b"".join(files[name] for name in sorted(files) if name.endswith(".jsonl")).splitlines()
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def _requested(files: dict[str, bytes]) -> set[JobName]:
    runs = [record for record in _records(files) if record["is"] == "run"]
    return {(machine["name"], run["uuid"]) for run in runs for machine in run["machines"]}


def _outcomes(files: dict[str, bytes]) -> dict[JobName, Outcome]:
    found: dict[JobName, Outcome] = {}
    for record in _records(files):
        if record["is"] == "ended":
            job = record["machine"], record["uuid"]
            assert job not in found, "a job has two outcomes"
            told = record["outcome"]
            found[job] = Outcome(**{**told, "state": State(told["state"])})
    return found


@pytest.mark.timeout(600)  # one that is ended by the clock is a failure to hypothesis, which it would make smaller
class TestRunMachine(RunMachine.TestCase):
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
