"""Group commit in its real thread: order, batches, failures, and the stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from clustersh.group_commit import GroupCommit, StoppedError

Commit = GroupCommit[int, int]


class Disk:
    """Writes batches when let: each waits for `gate`; items of *bad* fail their batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.bad: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def write(self, items: Sequence[int]) -> Sequence[int]:
        self.gate.wait(10)
        self.threads.add(threading.get_ident())
        self.batches.append(list(items))
        if self.bad & set(items):
            raise OSError(28, "No space left on device")
        return [item * 10 for item in items]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def make() -> Iterator[Callable[[Disk], Commit]]:
    made: list[Commit] = []

    def one(disk: Disk) -> Commit:
        commit = Commit(reactor, "test", disk.write)
        made.append(commit)
        return commit

    yield one
    for commit in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(commit.stop()))


@pytest_twisted.ensureDeferred
async def test_items_that_wait_share_one_write_in_order(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    disk.gate.clear()
    waiting = [commit.submit(item) for item in range(50)]
    disk.gate.set()
    assert await gatherResults(waiting) == [item * 10 for item in range(50)]
    assert [item for batch in disk.batches for item in batch] == list(range(50))
    assert len(disk.batches) == 2
    assert disk.threads.isdisjoint({threading.get_ident()})


@pytest_twisted.ensureDeferred
async def test_items_that_came_before_the_start_are_written(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    early = commit.submit(1)
    assert not disk.batches
    commit.start()
    assert await early == 10


@pytest_twisted.ensureDeferred
async def test_a_failure_fails_its_batch_and_no_other(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    disk.bad = {2}
    disk.gate.clear()
    waiting = [commit.submit(item) for item in (1, 2, 3)]  # 1 is a batch of its own, 2 and 3 wait for it
    disk.gate.set()
    results = await DeferredList(waiting, consumeErrors=True)
    assert [success for success, _ in results] == [True, False, False]
    assert results[1][1].check(OSError)
    assert await commit.submit(4) == 40


@pytest_twisted.ensureDeferred
async def test_a_write_that_answers_for_too_few_fails_them_all(make: Callable[[Disk], Commit]) -> None:
    commit = Commit(reactor, "test", lambda items: items[:-1])
    commit.start()
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await commit.submit(1)
    await commit.stop()


@pytest_twisted.ensureDeferred
async def test_stop_writes_what_waits_and_tells_it_first(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    disk.gate.clear()
    told: list[int] = []
    for item in (1, 2, 3):
        commit.submit(item).addCallback(told.append)
    stopped = Deferred.fromCoroutine(commit.stop())
    disk.gate.set()
    await stopped
    assert told == [10, 20, 30]


@pytest_twisted.ensureDeferred
async def test_stop_writes_what_came_without_a_start(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    early = commit.submit(1)
    await commit.stop()
    assert await early == 10


@pytest_twisted.ensureDeferred
async def test_an_item_submitted_by_an_answer_is_written_before_the_stop(
    disk: Disk, make: Callable[[Disk], Commit]
) -> None:
    commit = make(disk)
    commit.start()
    disk.gate.clear()
    second: list[Deferred[int]] = []
    commit.submit(1).addCallback(lambda _: second.append(commit.submit(2)))
    stopped = Deferred.fromCoroutine(commit.stop())
    disk.gate.set()
    await stopped
    assert disk.batches == [[1], [2]]
    assert await second[0] == 20


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_after_the_stop(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    await commit.stop()
    with pytest.raises(StoppedError):
        await commit.submit(1)
    await commit.stop()


@pytest_twisted.ensureDeferred
async def test_functions_run_in_the_writing_thread_after_the_batch(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    disk.gate.clear()
    written = commit.submit(1)
    seen = Deferred.fromCoroutine(commit.in_thread(lambda: (len(disk.batches), threading.get_ident())))
    disk.gate.set()
    await written
    count, thread = await seen
    assert count == 1
    assert {thread} == disk.threads


@pytest_twisted.ensureDeferred
async def test_what_nobody_waits_for_goes_with_the_next_item_in_order(
    disk: Disk, make: Callable[[Disk], Commit]
) -> None:
    commit = make(disk)
    commit.start()
    unhurried = [commit.submit_later(item) for item in (1, 2)]
    assert await commit.submit(3) == 30
    assert await gatherResults(unhurried) == [10, 20]
    assert disk.batches == [[1, 2, 3]]


@pytest_twisted.ensureDeferred
async def test_what_nobody_waits_for_is_written_without_a_next_item(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    assert await gatherResults([commit.submit_later(item) for item in (1, 2)]) == [10, 20]
    assert disk.batches == [[1, 2]]


@pytest_twisted.ensureDeferred
async def test_what_nobody_waits_for_is_written_before_the_stop(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    told: list[int] = []
    commit.submit_later(1).addCallback(told.append)
    await commit.stop()
    assert told == [10]
    with pytest.raises(StoppedError):
        await commit.submit_later(2)


@pytest_twisted.ensureDeferred
async def test_a_function_that_fails_in_the_thread_fails_its_asker(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()

    def fail_there() -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        await commit.in_thread(fail_there)
    assert await commit.submit(1) == 10


@pytest_twisted.ensureDeferred
async def test_a_function_in_the_thread_leaves_waiting_what_waits(disk: Disk, make: Callable[[Disk], Commit]) -> None:
    commit = make(disk)
    commit.start()
    later = commit.submit_later(1)
    assert await commit.in_thread(lambda: len(disk.batches)) == 0
    assert not later.called
    await commit.stop()
    assert disk.batches == [[1]]
    with pytest.raises(StoppedError):
        await commit.in_thread(lambda: 0)
