"""A run's life on the coordinator against a plain model, with crashes between any two steps of it, and within them.

The ledger, the index and all that decides are the real ones. What they do in threads waits in a list, in which the
machine chooses: so a crash may come before, between and within everything that touches the disk, and after a loss of
power what was not synced is gone (power.py). Clients ask again under their keys. The agent is the test's: it keeps
what it knows through every crash, its messages come late, twice or never, and sometimes it changes its mind.
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
        # The model: what clients were told, and what the agent knows.
        self.uuids: dict[str, str] = {}
        self.starts: Counter[str] = Counter()
        self.jobs: dict[str, Outcome | None] = {}
        self.reported: dict[str, list[Outcome]] = {}
        self.told: dict[str, Outcome] = {}
        self.acknowledged: set[str] = set()
        self._boot()
        self._wait_for(self.world.join("ws1"))
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
        self.agent: Agent | None = None
        self.inbox: list[Any] = []
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

    @rule(number=st.integers(0, 9), again=st.booleans())
    def ask(self, number: int, again: bool) -> None:
        """Ask for a run, perhaps once more; every other one goes in batches, of which there is one."""
        number = number if again else len(self.uuids)
        key, pace = f"key-{number}", Pace(canary=1) if number % 2 else None
        asked = RunRequest("ws1", Command(shell=key), pace=pace)
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

    @rule()
    def link_up(self) -> None:
        self.inbox = []
        self.agent = Agent(self.world, "ws1")
        self.agent.link.send = self._sent
        hello = Hello("1", "instance", "store", 1000.0 + self.clock.seconds())
        self.asking.append(Deferred.fromCoroutine(self.world.fleet.hello(self.agent.link, hello)))

    def _sent(self, message: Any) -> None:
        """The coordinator sends *message*: what it implies must be on the disk by now."""
        if isinstance(message, Start):
            self.starts[message.uuid] += 1
            assert self.starts[message.uuid] == 1, "a run is dispatched twice"
            assert self._is_safe(message.uuid, "run"), "a run is dispatched before it is durable"
            if int(message.command.text.removeprefix("key-")) % 2:
                assert self._is_safe(message.uuid, "batch"), "a batch is dispatched before it is durable"
        elif isinstance(message, Acknowledge):
            assert self._is_safe(message.uuid, "ended"), "an outcome is acknowledged before it is durable"
        self.inbox.append(message)

    @rule()
    def come_back(self) -> None:
        """The machine comes, and the two talk until there is nothing more to say."""
        self.settle()
        self.link_up()
        self.settle()
        self._hear_all()

    @precondition(lambda self: self.agent)
    @rule(outcome=st.sampled_from(OUTCOMES))
    def whole_run(self, outcome: Outcome) -> None:
        """A run without any trouble."""
        self.ask(0, again=False)
        self.settle()
        self._hear_all()
        if self.jobs:
            self.ends(0, outcome, tells=True)

    @precondition(lambda self: self.agent)
    @rule()
    def link_down(self) -> None:
        """What is still on its way is lost."""
        self.world.fleet.closed(self.agent.link)
        self.agent, self.inbox = None, []

    @precondition(lambda self: self.inbox)
    @rule(silent=st.booleans())
    def deliver(self, silent: bool) -> None:
        """The agent hears the next message, and may say nothing of it yet."""
        message = self.inbox.pop(0)
        if isinstance(message, Start):
            assert message.uuid not in self.jobs or self.jobs[message.uuid] == NEVER_SEEN
            self.jobs.setdefault(message.uuid, None)
            if not silent:
                self._say(message.uuid)
        elif isinstance(message, Welcome):
            for uuid in (*message.open, *(each for each in self.jobs if each not in self.acknowledged)):
                self.jobs.setdefault(uuid, NEVER_SEEN)
                self._say(uuid)
        elif isinstance(message, Acknowledge):
            assert self.jobs[message.uuid] is not None, "what has not ended is acknowledged"
            self.acknowledged.add(message.uuid)
        elif isinstance(message, Cancel) and self.jobs.get(message.uuid, NEVER_SEEN) is None:
            self.jobs[message.uuid] = OUTCOMES[2]
            self._say(message.uuid)

    @precondition(lambda self: self.agent and self.jobs)
    @rule(number=st.integers(0, 9))
    def say(self, number: int) -> None:
        """The agent tells how a job is, perhaps once more."""
        self._say(sorted(self.jobs)[number % len(self.jobs)])

    def _say(self, uuid: str) -> None:
        assert self.agent is not None
        outcome = self.jobs[uuid]
        if outcome is None:
            self.agent.started(uuid)
        else:
            self.reported.setdefault(uuid, []).append(outcome)
            self.agent.ended(uuid, outcome)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 3), outcome=st.sampled_from(OUTCOMES), tells=st.booleans())
    def ends(self, number: int, outcome: Outcome, tells: bool) -> None:
        """A job ends; a lying agent's may end in another way later."""
        uuid = sorted(self.jobs, reverse=True)[number % len(self.jobs)]
        self.jobs[uuid] = outcome
        if tells and self.agent:
            self._say(uuid)

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

    def _is_safe(self, uuid: str, kind: str) -> bool:
        return any(record["is"] == kind and record["uuid"] == uuid for record in _records(self.storage.safe()))

    @rule()
    def all_is_well_in_the_end(self) -> None:
        """The machine comes back, everything is told and ends: each run has one outcome, and its agent knows that."""
        self.settle()
        self.clock.advance(START_WITHIN_S)
        self.link_up()
        self.settle()
        self._hear_all()
        for uuid, outcome in self.jobs.items():
            self.jobs[uuid] = outcome or OUTCOMES[0]
        for uuid in set(self.jobs) - self.acknowledged:
            self._say(uuid)
        self.settle()
        self._hear_all()
        ended = _outcomes(self.storage.safe())
        assert set(self.uuids.values()) <= ended.keys(), "a run without an outcome"
        assert set(self.jobs) <= self.acknowledged, "the agent was never told that its outcome is kept"
        assert not len(self.world.table), "a run that has ended is held as open"

    def _hear_all(self) -> None:
        while self.inbox:
            self.deliver(silent=False)
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
        for uuid, outcome in ended.items():
            assert self.told.setdefault(uuid, outcome) == outcome, "an outcome changed"
            theirs = outcome.state in (State.COMPLETED, State.FAILED, State.CANCELLED) and outcome.reason != (
                "cancelled before it started"
            )
            assert not theirs or outcome in self.reported[uuid], "an outcome that nobody reported"
            if outcome.state is State.NOT_STARTED and outcome != NEVER_SEEN:
                assert not self.starts[uuid], "a run that was dispatched is said not to have started"
        for uuid in self.told:
            assert uuid in ended, "an outcome that was durable is gone"
        for uuid in self.uuids.values():
            run = self.world.table.find(uuid)
            for job in run.jobs.values() if run else ():
                assert job.end is None or job.end.outcome == ended.get(uuid), "a client is told what is not durable"


def _records(files: dict[str, bytes]) -> list[dict[str, Any]]:
    lines = b"".join(files[name] for name in sorted(files) if name.endswith(".jsonl")).splitlines()
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def _outcomes(files: dict[str, bytes]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for record in _records(files):
        if record["is"] == "ended":
            assert record["uuid"] not in found, "a job has two outcomes"
            told = record["outcome"]
            found[record["uuid"]] = Outcome(**{**told, "state": State(told["state"])})
    return found


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
