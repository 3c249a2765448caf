"""What the agent decides: jobs that run once or never, and what the coordinator is told. The store is a real one."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from clustersh.agent.disk import Disk, Free
from clustersh.agent.jobs import RESTARTED, TOO_LATE, Jobs
from clustersh.agent.records import JobRecord, ProcessMark, StoreError
from clustersh.agent.runner import AGENT_STOPPED, CANCELLED, Result
from clustersh.agent.store import JobStore
from clustersh.wire.jobs import Outcome, State
from clustersh.wire.link import (
    NEVER_SEEN,
    Acknowledge,
    Cancel,
    Ended,
    Failed,
    Started,
    Stdin,
    StdinTaken,
    Welcome,
    decode_from_agent,
    encode,
)
from clustersh.wire.problems import Kind

from .jobs_support import WITNESS, new_uuid, start

ensure = pytest_twisted.ensureDeferred
DONE = Outcome.exited(0)


class FakeJob:
    """A job that ends when the test says so."""

    def __init__(self, message) -> None:
        self.message = message
        self.done: Deferred[Result] = Deferred()
        self.pieces = []

    async def run(self, note_process):
        note_process(ProcessMark(1234, 5.0, "boot"))
        return await self.done

    def end(self, verdict) -> None:
        self.done.callback(Result(verdict, 1.0))

    def stdin(self, piece, reply) -> None:
        self.pieces.append(piece)


class SmallDisk(Disk):
    free_now = Free(1 << 40, None)

    def free(self, folder):
        return self.free_now


class Agent:
    def __init__(self, folder) -> None:
        self.disk = SmallDisk()
        self.store = JobStore(reactor, folder / "agent", reserve=100, now=lambda: 1000.0, disk=self.disk)
        self.clock = 50.0
        self.started: list[FakeJob] = []
        self.sent: list = []
        self.ended_leftovers: list[str] = []
        self._arrived: list[Deferred] = []
        self.jobs = Jobs(
            reactor,
            self.store,
            clock=lambda: self.clock,
            now=lambda: 1000.0,
            make_job=self._make,
            end_leftovers=self._end_leftovers,
        )

    def _make(self, message) -> FakeJob:
        self.started.append(FakeJob(message))
        return self.started[-1]

    async def _end_leftovers(self, job) -> float:
        self.ended_leftovers.append(job.uuid)
        return 7.5

    def send(self, message) -> None:
        self.sent.append(message)
        arrived, self._arrived = self._arrived, []
        for one in arrived:
            reactor.callLater(0, one.callback, None)

    def link_up(self, epoch: int = 1, open_jobs=()) -> None:
        self.jobs.link_up(self.send)
        self.jobs.received(Welcome(epoch, "ws1", tuple(open_jobs), WITNESS))

    async def told(self, count: int = 1) -> list:
        """Wait until *count* messages were sent; return them all and forget them."""
        while len(self.sent) < count:
            arrived: Deferred[None] = Deferred()
            self._arrived.append(arrived)
            await arrived
        sent, self.sent = self.sent, []
        return sent


@asynccontextmanager
async def agent_in(folder, *, link=True):
    agent = Agent(folder)
    left = await agent.store.open()
    agent.jobs.recover(left)
    if link:
        agent.link_up()
    try:
        yield agent
    finally:
        for job in agent.started:
            if not job.done.called:
                job.end(CANCELLED)
        await agent.jobs.stop()
        await agent.store.close()


@ensure
async def test_a_job_is_journalled_answered_run_and_told(tmp_path):
    async with agent_in(tmp_path) as agent:
        message = start("true", start_by=60.0)
        agent.jobs.received(message)
        assert await agent.told() == [Started(message.uuid)]
        assert agent.store.running() == (message.uuid,)
        agent.started[0].done.callback(Result(DONE, 2.5))
        (ended,) = await agent.told()
        assert (ended.uuid, ended.outcome, ended.duration_s) == (message.uuid, DONE, 2.5)


@ensure
async def test_the_same_start_again_never_runs_it_twice(tmp_path):
    async with agent_in(tmp_path) as agent:
        message = start("true", start_by=60.0)
        agent.jobs.received(message)
        agent.jobs.received(message)
        assert await agent.told() == [Started(message.uuid)]
        agent.jobs.received(message)
        assert (await agent.told())[-1] == Started(message.uuid)
        agent.started[0].done.callback(Result(DONE, 0.0))
        await agent.told()
        agent.jobs.received(message)
        (ended,) = await agent.told()
        assert ended.outcome == DONE
        assert len(agent.started) == 1


@ensure
@pytest.mark.parametrize("late", [{"start_by": 49.9}, {"epoch": 0}, {"epoch": 2}])
async def test_a_late_start_is_refused_for_ever(tmp_path, late):
    message = start("true", **{"start_by": 60.0, **late})
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(message)
        assert [ended.outcome for ended in await agent.told()] == [TOO_LATE]
        assert agent.started == []
    async with agent_in(tmp_path, link=False) as agent:
        with pytest.raises(StoreError):
            await agent.store.begin(JobRecord.of(message, 1000.0))


@ensure
async def test_a_machine_that_slept_while_it_journalled_does_not_start(tmp_path):
    async with agent_in(tmp_path) as agent:
        message = start("true", start_by=60.0)
        agent.jobs.received(message)
        agent.clock = 61.0  # between the journal's write and its end
        (ended,) = await agent.told()
        assert ended.outcome == TOO_LATE
        assert agent.started == []


@ensure
async def test_nothing_starts_before_the_welcome(tmp_path):
    async with agent_in(tmp_path, link=False) as agent:
        agent.jobs.link_up(agent.send)
        agent.jobs.received(start("true", start_by=60.0))
        assert [ended.outcome for ended in await agent.told()] == [TOO_LATE]


@ensure
async def test_reconciliation_accounts_for_every_open_job(tmp_path):
    running, done, never = start("true", start_by=60.0), start("true", start_by=60.0), new_uuid()
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(running)
        await agent.told()
        agent.jobs.received(done)
        await agent.told()
        agent.jobs.link_down(agent.send)
        agent.started[1].done.callback(Result(DONE, 0.0))
        while agent.store.unacknowledged() != (done.uuid,):
            await deferLater(reactor, 0.001)
        assert agent.sent == []
        agent.link_up(2, [running.uuid, done.uuid, never])
        told = {message.uuid: message for message in await agent.told(3)}
        assert told[running.uuid] == Started(running.uuid)
        assert told[done.uuid].outcome == DONE
        assert told[never].outcome == NEVER_SEEN
        # What was never seen can't start any more.
        agent.jobs.received(start("true", uuid=never, epoch=2, start_by=60.0))
        (again,) = await agent.told()
        assert again.outcome == NEVER_SEEN
        assert len(agent.started) == 2


@ensure
async def test_outcomes_are_told_until_they_are_acknowledged(tmp_path):
    message = start("true", start_by=60.0)
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(message)
        await agent.told()
        agent.started[0].done.callback(Result(DONE, 0.0))
        await agent.told()
        agent.link_up(2)  # it doesn't know this job to be open, but has not acknowledged it
        (again,) = await agent.told()
        assert isinstance(again, Ended)
        agent.jobs.received(Acknowledge(message.uuid, WITNESS))
        agent.link_up(3, [new_uuid()])
        (other,) = await agent.told()
        assert other.outcome == NEVER_SEEN
        agent.link_up(4, [message.uuid])  # a coordinator restored from a backup asks again
        told = {ended.uuid: ended.outcome for ended in await agent.told(2)}
        assert told[message.uuid] == DONE


@ensure
async def test_a_restarted_agent_ends_what_was_left_and_says_interrupted(tmp_path):
    message = start("true", start_by=60.0)
    crashed = Agent(tmp_path)
    await crashed.store.open()
    await crashed.store.begin(JobRecord.of(message, 1000.0))
    await crashed.store.close()
    async with agent_in(tmp_path) as agent:
        (ended,) = await agent.told()
        assert (ended.uuid, ended.outcome, ended.duration_s) == (message.uuid, RESTARTED, 7.5)
        assert agent.ended_leftovers == [message.uuid]


@ensure
async def test_cancel_ends_a_running_job_and_nothing_else(tmp_path):
    async with agent_in(tmp_path) as agent:
        message = start("true", start_by=60.0)
        agent.jobs.received(Cancel(message.uuid))
        agent.jobs.received(message)
        await agent.told()
        agent.jobs.received(Cancel(message.uuid))
        (ended,) = await agent.told()
        assert ended.outcome == CANCELLED


@ensure
async def test_a_stopping_agent_ends_its_jobs_and_starts_none(tmp_path):
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(start("true", start_by=60.0))
        await agent.told()
        stopping = Deferred.fromCoroutine(agent.jobs.stop())
        agent.jobs.received(start("true", start_by=60.0))
        await stopping
        assert {ended.outcome for ended in await agent.told(2)} == {AGENT_STOPPED, TOO_LATE}
        assert len(agent.started) == 1


@ensure
async def test_a_full_disk_refuses_the_start(tmp_path):
    async with agent_in(tmp_path) as agent:
        agent.disk.free_now = Free(1, None)
        agent.jobs.received(start("true", start_by=60.0))
        (ended,) = await agent.told()
        assert ended.outcome.state is State.NOT_STARTED
        assert ended.outcome.reason
        assert agent.started == []


@ensure
async def test_a_bug_in_a_job_ends_only_that_job(tmp_path):
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(start("true", start_by=60.0))
        agent.jobs.received(start("true", start_by=60.0))
        await agent.told(2)
        agent.started[0].done.errback(RuntimeError("a bug"))
        (ended,) = await agent.told()
        assert ended.outcome.state is State.INTERRUPTED
        assert agent.jobs.running == 1


@ensure
async def test_a_second_link_takes_over_and_the_end_of_the_first_changes_nothing(tmp_path):
    async with agent_in(tmp_path) as agent:
        first, second = agent.send, []
        agent.jobs.link_up(second.append)
        agent.jobs.link_down(first)
        agent.jobs.received(Stdin(1, new_uuid(), 0, b""))
        assert [type(answer) for answer in second] == [Failed]


@ensure
async def test_stdin_finds_its_job(tmp_path):
    async with agent_in(tmp_path) as agent:
        message = start("true", start_by=60.0, stdin=True)
        agent.jobs.received(message)
        await agent.told()
        piece = Stdin(7, message.uuid, 3, b"x")
        agent.jobs.received(piece)
        assert agent.started[0].pieces == [piece]
        agent.started[0].done.callback(Result(DONE, 0.0))
        await agent.told()
        agent.jobs.received(piece)
        agent.jobs.received(Stdin(8, new_uuid(), 0, b"x"))
        answers = await agent.told(2)
        assert answers[0] == StdinTaken(7, 3, closed=True)
        assert (answers[1].request, answers[1].type) == (8, Kind.UNKNOWN_RUN.value)


@ensure
async def test_stdin_that_comes_while_the_start_is_journalled_is_asked_for_again(tmp_path):
    """A client is quick to send it; an answer that the job takes none would have it wait for input for ever."""
    async with agent_in(tmp_path) as agent:
        message = start("cat", start_by=60.0, stdin=True)
        piece = Stdin(7, message.uuid, 0, b"x")
        agent.jobs.received(message)
        agent.jobs.received(piece)
        early, begun = await agent.told(2)
        assert (type(begun), early.request, early.type) == (Started, 7, Kind.NOT_RUNNING.value)
        agent.jobs.received(piece)
        assert agent.started[0].pieces == [piece]


@ensure
async def test_a_reason_travels_whatever_is_in_it(tmp_path):
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(start("true", start_by=60.0))
        await agent.told()
        reason = "no such directory: /\udcff" + "x" * 100_000
        agent.started[0].done.callback(Result(Outcome(State.NOT_STARTED, reason=reason), 0.0))
        (ended,) = await agent.told()
        assert ended.outcome.reason.startswith(r"no such directory: /\udcff")
        assert decode_from_agent(encode(ended)) == ended


@ensure
async def test_a_job_whose_record_is_damaged_gets_an_outcome_all_the_same(tmp_path):
    message = start("true", start_by=60.0)
    async with agent_in(tmp_path) as agent:
        agent.jobs.received(message)
        await agent.told()
        agent.started[0].done.callback(Result(DONE, 0.0))
        await agent.told()
        agent.jobs.received(Acknowledge(message.uuid, WITNESS))
    (record,) = (tmp_path / "agent" / "jobs").glob("*/*/job.json")
    record.write_bytes(record.read_bytes()[:20] + b"\0" * 100)
    (tmp_path / "agent" / "journal").write_bytes(b"")  # it has forgotten the job long ago
    async with agent_in(tmp_path, link=False) as agent:
        agent.link_up(2, [message.uuid])
        (ended,) = await agent.told()
        assert ended.outcome.state is State.INTERRUPTED
        assert "damaged" in ended.outcome.reason
