"""The job store: a job's whole life, restarts at every point of it, and disks that fail."""

import errno
import os
import shutil
import time
from contextlib import asynccontextmanager

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor, threads
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from clustersh.agent.disk import Disk, Free
from clustersh.agent.output_writer import INLINE_LIMIT
from clustersh.agent.records import JobKnownError, JobRecord, ProcessMark, StoredJob, StoreError
from clustersh.agent.store import JobStore
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import HEAD_LIMIT, Command, Outcome, OutputSummary, State
from clustersh.wire.link import MAX_CHUNK, NEVER_SEEN, Ended, Start, Witness
from clustersh.wire.output import Stream, pieces
from clustersh.wire.problems import Kind

new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)
WITNESS = Witness(7, "ab")
INTERRUPTED = Outcome(State.INTERRUPTED, reason="the agent restarted")
DONE = Outcome.exited(0)


class FaultyDisk(Disk):
    """A disk whose writes or syncs fail while it is told so."""

    def __init__(self):
        self.broken = False
        self.free_now = Free(1 << 40, None)

    def write(self, file, data):
        if self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(file, data)

    def free(self, folder):
        return self.free_now


def record(uuid=None, **more):
    return JobRecord(uuid or new_uuid(), "me@here", Command(shell="true"), 1.0, **more)


def store_in(folder, disk=None):
    return JobStore(reactor, folder / "agent", reserve=100, now=lambda: 1000.0, disk=disk)


@asynccontextmanager
async def opened(folder, disk=None):
    store = store_in(folder, disk)
    store.found = await store.open()
    try:
        yield store
    finally:
        await store.close()


def job_folder(folder, uuid):
    (found,) = (folder / "agent" / "jobs").glob(f"*/{uuid}")
    return found


def names_in(folder):
    return {path.name for path in folder.iterdir()}


async def fill(store, uuid, *came):
    """Begin a job and put *came* on the disk."""
    await store.begin(record(uuid))
    writer = store.output(uuid)
    for stream, data in came:
        writer.write(stream, data)
        await store.wait_for_more(uuid, writer.sizes.of(stream), stream)
    return writer


@pytest_twisted.ensureDeferred
async def test_a_small_job_is_one_file_and_its_result_travels_whole(tmp_path):
    async with opened(tmp_path) as store:
        job = record(env=("SECRET",))
        await store.begin(job)
        store.note_process(job.uuid, ProcessMark(12, 3.5, "boot"))
        writer = store.output(job.uuid)
        writer.write(Stream.STDOUT, b"out\n")
        writer.write(Stream.STDERR, b"err\n")
        ended = await store.end(job.uuid, DONE, 0.25)
        assert list(pieces(ended.head, ended.head_runs)) == [(Stream.STDOUT, b"out\n"), (Stream.STDERR, b"err\n")]
        assert (ended.outcome, ended.duration_s, ended.output.stdout_bytes) == (DONE, 0.25, 4)
        assert store.unacknowledged() == (job.uuid,)
        assert store.running() == ()
        store.acknowledged(job.uuid, WITNESS)
        assert store.unacknowledged() == ()
    folder = job_folder(tmp_path, job.uuid)
    assert names_in(folder) == {"job.json"}
    stored = msgspec.json.decode((folder / "job.json").read_bytes(), type=StoredJob)
    assert (stored.record, stored.mark) == (job, ProcessMark(12, 3.5, "boot"))
    assert {path.stat().st_mode & 0o777 for path in [folder, folder.parent, folder.parent.parent]} == {0o700}
    assert (folder / "job.json").stat().st_mode & 0o777 == 0o600
    async with opened(tmp_path) as store:
        assert (store.found, store.unacknowledged()) == ([], ())
        assert await store.ended(job.uuid) == ended
        assert (await store.read(job.uuid, Stream.STDERR, 1, 99)).data == b"rr\n"
        with pytest.raises(JobKnownError):
            await store.begin(job)


def test_a_record_names_environment_variables_and_holds_no_value():
    start = Start(1, 2.0, new_uuid(), "me@here", Command(shell="x"), WITNESS, env={"B": "secret", "A": "secret"})
    made = JobRecord.of(start, 5.0)
    assert made.env == ("A", "B")
    assert b"secret" not in msgspec.json.encode(made)


@pytest_twisted.ensureDeferred
async def test_a_job_is_begun_once(tmp_path):
    async with opened(tmp_path) as store:
        job = record()
        first, second = store.begin(job), store.begin(job)
        both = [Deferred.fromCoroutine(first), Deferred.fromCoroutine(second)]
        with pytest.raises(JobKnownError):
            await both[1]
        await both[0]
        assert store.running() == (job.uuid,)


@pytest_twisted.ensureDeferred
async def test_a_refused_job_never_begins_not_even_after_a_restart(tmp_path):
    uuid = new_uuid()
    async with opened(tmp_path) as store:
        assert await store.refuse(uuid, NEVER_SEEN, WITNESS) == Ended(uuid, NEVER_SEEN)
        assert store.unacknowledged() == (uuid,)
        with pytest.raises(JobKnownError):
            await store.begin(record(uuid))
        with pytest.raises(JobKnownError):
            await store.refuse(uuid, NEVER_SEEN)
    for _ in range(2):
        async with opened(tmp_path) as store:
            assert await store.ended(uuid) == Ended(uuid, NEVER_SEEN)
            store.acknowledged(uuid, WITNESS)
            with pytest.raises(JobKnownError):
                await store.begin(record(uuid))


@pytest_twisted.ensureDeferred
async def test_ending_a_job_again_returns_the_first_outcome(tmp_path):
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        cancelled = Outcome(State.CANCELLED, signal=15)
        ends = [
            Deferred.fromCoroutine(store.end(job.uuid, DONE, 1.0)),
            Deferred.fromCoroutine(store.end(job.uuid, cancelled, 2.0)),
        ]
        first, second = await gatherResults(ends)
        assert first == second
        assert first.outcome == DONE


@pytest_twisted.ensureDeferred
async def test_a_large_output_is_in_files_and_its_head_in_the_result(tmp_path):
    data = bytes(range(256)) * 4096
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        writer = store.output(job.uuid)
        assert store.output(job.uuid) is writer
        for start in range(0, len(data), 8192):
            writer.write(Stream.STDERR, data[start : start + 8192])
        ended = await store.end(job.uuid, DONE, 1.0)
        assert ended.head == data[:HEAD_LIMIT]
        part = await store.read(job.uuid, Stream.BOTH, 1000, 1 << 30)
        assert (part.data, part.size, part.ended) == (data[1000 : 1000 + MAX_CHUNK], len(data), True)
        store.acknowledged(job.uuid, WITNESS)
    assert names_in(job_folder(tmp_path, job.uuid)) == {"job.json", "output", "index"}
    async with opened(tmp_path) as store:
        assert await store.ended(job.uuid) == ended
        assert (await store.read(job.uuid, Stream.STDERR, len(data) - 5, 10)).data == data[-5:]
        past = await store.read(job.uuid, Stream.STDOUT, 0, 10)
        assert (past.data, past.size, past.ended) == (b"", 0, True)


@pytest_twisted.ensureDeferred
async def test_a_piece_takes_one_turn_of_a_thread(tmp_path, monkeypatch):
    turns = []

    def counted(reactor, pool, function, *args):
        turns.append(function)
        return threads.deferToThreadPool(reactor, pool, function, *args)

    async with opened(tmp_path) as store:
        uuid = new_uuid()
        await fill(store, uuid, (Stream.STDOUT, b"x" * (2 * INLINE_LIMIT)))
        monkeypatch.setattr("clustersh.agent.store.deferToThreadPool", counted)
        assert (await store.read(uuid, Stream.BOTH, 1, 5)).data == b"xxxxx"
        assert len(turns) == 1, "of a job that runs"
        await store.end(uuid, DONE, 1.0)
        store.acknowledged(uuid, WITNESS)
    async with opened(tmp_path) as store:
        turns.clear()
        part = await store.read(uuid, Stream.BOTH, 2, 5)
        assert (part.data, part.ended) == (b"xxxxx", True)
        assert len(turns) == 1, "of one that only its files know"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("size", [INLINE_LIMIT, INLINE_LIMIT + 1])
async def test_the_inline_limit(tmp_path, size):
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        store.output(job.uuid).write(Stream.STDOUT, b"x" * size)
        await store.end(job.uuid, DONE, 1.0)
        assert (await store.read(job.uuid, Stream.STDOUT, 0, size)).data == b"x" * size
    assert (job_folder(tmp_path, job.uuid) / "output").exists() is (size > INLINE_LIMIT)


@pytest_twisted.ensureDeferred
async def test_a_live_job_is_followed(tmp_path):
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        more = store.wait_for_more(job.uuid, 0, Stream.STDOUT)
        writer = store.output(job.uuid)
        assert (await store.read(job.uuid, Stream.BOTH, 0, 10)).ended is False
        writer.write(Stream.STDERR, b"not this")
        await store.wait_for_more(job.uuid, 0, Stream.BOTH)
        assert not more.called
        writer.write(Stream.STDOUT, b"this")
        await more
        part = await store.read(job.uuid, Stream.STDOUT, 0, 10)
        assert (part.data, part.size, part.ended) == (b"this", 4, False)
        given_up = store.wait_for_more(job.uuid, 4, Stream.STDOUT)
        given_up.cancel()
        with pytest.raises(CancelledError):
            await given_up
        last = store.wait_for_more(job.uuid, 4, Stream.STDOUT)
        await store.end(job.uuid, DONE, 1.0)
        await last
        assert (await store.read(job.uuid, Stream.STDOUT, 4, 10)).ended is True
        await store.wait_for_more(job.uuid, 99, Stream.STDOUT)


@pytest_twisted.ensureDeferred
async def test_the_tail_of_files_and_of_each_stream(tmp_path):
    lines = b"".join(b"line %06d\n" % number for number in range(20_000))
    async with opened(tmp_path) as store:
        uuid = new_uuid()
        await fill(store, uuid, (Stream.STDOUT, lines), (Stream.STDERR, b"a\nb\n"), (Stream.STDOUT, b"last"))
        assert await store.tail_offset(uuid, Stream.STDOUT, 2) == len(lines) - 12
        assert await store.tail_offset(uuid, Stream.STDOUT, 15_000) == 5_001 * 12
        assert await store.tail_offset(uuid, Stream.STDOUT, 99_999) == 0
        assert await store.tail_offset(uuid, Stream.STDERR, 1) == 2
        assert await store.tail_offset(uuid, Stream.BOTH, 3) == len(lines)
        assert await store.tail_offset(uuid, Stream.BOTH, 0) == len(lines) + 8
        await store.end(uuid, DONE, 1.0)


@pytest_twisted.ensureDeferred
async def test_a_slow_disk_holds_the_process_back(tmp_path):
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        pressure = []
        writer = store.output(job.uuid, pressure.append)
        for _ in range(20):
            writer.write(Stream.STDOUT, b"x" * (64 << 10))
        assert pressure == [True]
        await store.end(job.uuid, DONE, 1.0)
        assert pressure == [True, False]


@pytest_twisted.ensureDeferred
async def test_a_killed_agents_job_is_found_and_its_output_recovered(tmp_path):
    uuid = new_uuid()
    store = store_in(tmp_path)
    await store.open()
    await fill(store, uuid, (Stream.STDOUT, b"one\n"), (Stream.STDERR, b"two\n"))
    store.note_process(uuid, ProcessMark(12, 3.5, "boot"))
    await store.close()
    with (job_folder(tmp_path, uuid) / "output").open("ab") as output:
        output.write(b"three\n")
    async with opened(tmp_path) as store:
        assert [(job.uuid, job.mark.pid) for job in store.found] == [(uuid, 12)]
        assert store.running() == (uuid,)
        waiting = store.wait_for_more(uuid, 0, Stream.BOTH)
        ended = await store.end(uuid, INTERRUPTED, 0.0)
        await waiting
        assert ended.output.unindexed == 6
        assert list(pieces(ended.head, ended.head_runs)) == [
            (Stream.STDOUT, b"one\n"),
            (Stream.STDERR, b"two\n"),
            (Stream.STDOUT, b"three\n"),
        ]
    async with opened(tmp_path) as store:
        assert store.found == []
        assert store.unacknowledged() == (uuid,)
        assert await store.ended(uuid) == ended


@pytest_twisted.ensureDeferred
async def test_a_job_killed_before_it_wrote_anything_has_no_output(tmp_path):
    store = store_in(tmp_path)
    await store.open()
    job = record()
    await store.begin(job)
    await store.close()
    async with opened(tmp_path) as store:
        ended = await store.end(job.uuid, INTERRUPTED, 0.0)
        assert ended.output == OutputSummary()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("damage", [b"", b'{"uuid":', b"\0" * 300, None])
async def test_a_job_file_whose_end_is_journalled_is_written_again(tmp_path, damage):
    async with opened(tmp_path) as store:
        job = record()
        await store.begin(job)
        store.output(job.uuid).write(Stream.STDOUT, b"kept")
        ended = await store.end(job.uuid, DONE, 1.0)
    path = job_folder(tmp_path, job.uuid) / "job.json"
    whole = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage)
    async with opened(tmp_path) as store:
        assert await store.ended(job.uuid) == ended
        assert path.read_bytes() == whole


@pytest_twisted.ensureDeferred
async def test_a_damaged_job_is_an_error_for_that_job_only(tmp_path):
    jobs = [record(), record()]
    async with opened(tmp_path) as store:
        for job in jobs:
            await store.begin(job)
            await store.end(job.uuid, DONE, 1.0)
            store.acknowledged(job.uuid, WITNESS)
    async with opened(tmp_path) as store:
        path = job_folder(tmp_path, jobs[0].uuid) / "job.json"
        path.write_bytes(b"\0")
        with pytest.raises(StoreError, match="is damaged") as raised:
            await store.get(jobs[0].uuid)
        assert raised.value.problem.kind is Kind.STORAGE
        assert (await store.get(jobs[1].uuid)).end.outcome == DONE


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("uuid", ["", "../../x", "0" * 36, "ffffffff-ffff-7fff-bfff-ffffffffffff"])
async def test_only_a_uuid_of_this_age_names_a_job(tmp_path, uuid):
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError) as raised:
            await store.begin(record(uuid or "x"))
        assert raised.value.problem.kind is Kind.BAD_REQUEST
        with pytest.raises(StoreError):
            await store.read(uuid, Stream.BOTH, 0, 1)
        with pytest.raises(StoreError) as raised:
            await store.get(new_uuid())
        assert raised.value.problem.kind is Kind.UNKNOWN_RUN


@pytest_twisted.ensureDeferred
async def test_the_store_id_lasts_as_long_as_the_jobs(tmp_path):
    ids = []
    for gone in (None, None, "jobs", "store.json", "journal"):
        if gone == "jobs":
            (tmp_path / "agent" / "jobs").rmdir()
        elif gone:
            (tmp_path / "agent" / gone).unlink()
        async with opened(tmp_path) as store:
            ids.append(store.store_id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert len(ids[0]) == 32


@pytest_twisted.ensureDeferred
async def test_a_full_disk_refuses_jobs_and_lets_them_end_once_there_is_room(tmp_path):
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as store:
        running, refused = record(), record()
        await store.begin(running)
        disk.broken = True
        with pytest.raises(StoreError) as raised:
            await store.begin(refused)
        assert raised.value.problem.kind is Kind.STORAGE
        assert not store.has(refused.uuid)
        with pytest.raises(StoreError):
            await store.end(running.uuid, DONE, 1.0)
        assert store.running() == (running.uuid,)
        disk.broken = False
        ended = await store.end(running.uuid, DONE, 1.0)
        assert ended.outcome == DONE
        await store.begin(refused)
        await store.end(refused.uuid, DONE, 1.0)


@pytest_twisted.ensureDeferred
async def test_output_is_cut_with_its_reason_where_the_disk_is_full(tmp_path):
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as store:
        uuid = new_uuid()
        cuts = []
        await store.begin(record(uuid))
        writer = store.output(uuid, on_cut=cuts.append)
        writer.write(Stream.STDOUT, b"kept")
        await store.wait_for_more(uuid, 0, Stream.STDOUT)
        disk.broken = True
        writer.write(Stream.STDOUT, b"lost" * 30_000)
        assert (await writer.finish()).cut == "disk full on the machine"
        assert cuts == [writer.cut] == ["disk full on the machine"]
        disk.broken = False
        ended = await store.end(uuid, DONE, 1.0)
        assert (ended.output.cut, ended.head) == (writer.cut, b"kept")
        assert ended.outcome == Outcome(
            State.FAILED, reason="disk full on the machine: not all of its output is kept (exit 0)"
        )


@pytest_twisted.ensureDeferred
async def test_no_job_may_start_under_the_reserve(tmp_path):
    disk = FaultyDisk()
    disk.free_now = Free(99, None)
    async with opened(tmp_path, disk) as store:
        assert store.free_space_problem() == "disk full on the machine"
    async with opened(tmp_path) as store:
        assert store.free_space_problem() == ""


@pytest_twisted.ensureDeferred
async def test_nothing_grows_in_memory_or_journal_with_jobs_that_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr("clustersh.agent.filing.FILE_AFTER_S", 0.0)
    async with opened(tmp_path) as store:
        store._journal._rotate_at = store._journal._next_rotation = 4000
        jobs = [record() for _ in range(60)]
        for job in jobs:
            await store.begin(job)
            await store.end(job.uuid, DONE, 1.0)
            store.acknowledged(job.uuid, WITNESS)
    assert store._jobs == {}
    async with opened(tmp_path) as store:
        assert sum(path.stat().st_size for path in (tmp_path / "agent").glob("journal*")) < 20_000
        for job in jobs:
            assert store.has(job.uuid)
            assert (await store.get(job.uuid)).end.outcome == DONE


@pytest_twisted.ensureDeferred
async def test_the_journal_is_shortened_at_the_start(tmp_path):
    async with opened(tmp_path) as store:
        for job in [record() for _ in range(5)]:
            await store.begin(job)
            await store.end(job.uuid, DONE, 1.0)
            store.acknowledged(job.uuid, WITNESS)
    path = tmp_path / "agent" / "journal"
    assert path.stat().st_size > 1000
    async with opened(tmp_path) as store:
        while (tmp_path / "agent" / "journal.old").exists():
            await threads.deferToThread(lambda: None)
        assert path.stat().st_size == 0
        assert (await store.get(job.uuid)).end.outcome == DONE


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_closed_takes_no_job(tmp_path):
    async with opened(tmp_path) as store:
        pass
    with pytest.raises(StoreError) as raised:
        await store.begin(record())
    assert raised.value.problem.kind is Kind.UNAVAILABLE


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_wiped_under_it_goes_on(tmp_path):
    async with opened(tmp_path) as store:
        before, after = new_uuid(), new_uuid()
        writer = await fill(store, before, (Stream.STDOUT, b"x" * (INLINE_LIMIT + 1)))
        assert writer.sizes.stdout
        shutil.rmtree(tmp_path / "agent" / "jobs")
        (tmp_path / "agent" / "journal").unlink()
        await store.end(before, DONE, 1.0)
        await fill(store, after, (Stream.STDOUT, b"y" * (INLINE_LIMIT + 1)))
        await store.end(after, DONE, 1.0)
        assert store.unacknowledged() == (before, after)
        assert len((await store.read(after, Stream.STDOUT, 0, 99)).data) == 99
    async with opened(tmp_path) as store:
        assert set(store.unacknowledged()) == {before, after}
        assert "not all of its output is kept (exit 0)" in (await store.ended(before)).outcome.reason
        assert (await store.ended(after)).outcome == DONE
        assert (tmp_path / "agent" / "jobs").stat().st_mode & 0o777 == 0o700


@pytest_twisted.ensureDeferred
async def test_a_damaged_store_id_is_a_new_store(tmp_path):
    async with opened(tmp_path) as store:
        first = store.store_id
    (tmp_path / "agent" / "store.json").write_bytes(b"\0" * 40)
    async with opened(tmp_path) as store:
        second = store.store_id
    async with opened(tmp_path) as store:
        assert store.store_id == second != first


@pytest_twisted.ensureDeferred
async def test_when_a_killed_agent_last_lived_is_known_from_what_it_wrote(tmp_path):
    crashed = store_in(tmp_path)
    await crashed.open()
    silent, talking = new_uuid(), new_uuid()
    await crashed.begin(record(silent))
    await fill(crashed, talking, (Stream.STDOUT, b"x"))
    await crashed.close()
    os.utime(tmp_path / "agent" / "journal", (2000, 2000))
    os.utime(job_folder(tmp_path, talking) / "output", (2003, 2003))
    async with opened(tmp_path) as store:
        assert (await store.last_trace(silent), await store.last_trace(talking)) == (2000, 2003)
