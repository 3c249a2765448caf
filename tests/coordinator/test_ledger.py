"""The ledger: a chain that survives torn tails and failed writes, and never repairs real damage by itself."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from clustersh.coordinator.ledger import Ledger
from clustersh.coordinator.ledger_files import Entry, LedgerBroken
from clustersh.coordinator.records import BatchBegun, Repaired, Revoked, RunRequested, Summary
from clustersh.coordinator.spare import SIZE
from clustersh.wire.jobs import Command
from clustersh.wire.problems import Kind, ProblemError

from ..power import Storage

MIDNIGHT = 1_800_057_600.0
Open = Callable[..., Ledger]


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Open]:
    opened: list[Ledger] = []

    def one(now: Callable[[], float] = lambda: MIDNIGHT, reserve: int = 0) -> Ledger:
        ledger = Ledger(reactor, tmp_path / "ledger", now, reserve)
        ledger.open()
        ledger.start()
        opened.append(ledger)
        return ledger

    yield one
    for ledger in opened:
        pytest_twisted.blockon(Deferred.fromCoroutine(ledger.stop()))


def a_run() -> RunRequested:
    return RunRequested("u", "c", "i", "k", "d", "t", (), Command(shell="true"))


def summaries(ledger: Ledger) -> list[str]:
    return [entry.record.what for entry in ledger.read() if isinstance(entry.record, Summary)]


@pytest_twisted.ensureDeferred
async def test_records_come_back_in_order_and_chained(open_ledger: Open) -> None:
    ledger = open_ledger()
    written = await gatherResults([ledger.append(Summary(f"event {n}", n)) for n in range(50)])
    assert [entry.seq for entry in written] == list(range(1, 51))
    assert list(ledger.read()) == written
    assert ledger.head.hash == written[-1].hash


@pytest_twisted.ensureDeferred
async def test_a_record_is_found_by_its_place(open_ledger: Open) -> None:
    days = itertools.count()
    ledger = open_ledger(lambda: MIDNIGHT + 86_400 * (next(days) // 2))
    written = [await ledger.append(Summary("x" * number, number)) for number in range(6)]
    assert len({entry.file for entry in written}) > 1
    assert [ledger.record_at(entry.file, entry.offset) for entry in written] == [entry.record for entry in written]
    with pytest.raises(LedgerBroken, match="there is no record at 1"):
        ledger.record_at(written[0].file, 1)


@pytest_twisted.ensureDeferred
async def test_a_reopened_ledger_goes_on_with_its_chain(open_ledger: Open) -> None:
    first = open_ledger()
    await first.append(Summary("before", 1))
    await first.stop()
    second = open_ledger()
    entry = await second.append(Summary("after", 1))
    assert entry.seq == 2
    assert summaries(second) == ["before", "after"]
    assert len(second.files()) == 1


@pytest_twisted.ensureDeferred
async def test_a_new_day_begins_a_new_file_and_a_clock_that_steps_back_breaks_nothing(open_ledger: Open) -> None:
    moment = [MIDNIGHT - 1]
    ledger = open_ledger(lambda: moment[0])
    for step in (0, 2, -90000):
        moment[0] += step
        await ledger.append(Summary(str(step), 1))
    assert summaries(ledger) == ["0", "2", "-90000"]
    assert [path.name.partition("-")[0] for path in ledger.files()] == ["000000000001", "000000000002", "000000000003"]


@pytest_twisted.ensureDeferred
async def test_followers_hear_of_a_record_whose_waiter_gave_up(open_ledger: Open) -> None:
    ledger = open_ledger()
    heard: list[Entry] = []
    ledger.subscribe(heard.append)
    given_up = ledger.append(Summary("given up", 1))
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    await ledger.append(Summary("waited for", 1))
    assert [entry.record.what for entry in heard if isinstance(entry.record, Summary)] == ["given up", "waited for"]


@pytest.mark.parametrize("tail", [b'{"seq":3,"time":"20', b"\0" * 700, b"\n\0\0\0", b"not json\n"])
@pytest_twisted.ensureDeferred
async def test_a_torn_tail_is_cut_kept_and_told(open_ledger: Open, tmp_path: Path, tail: bytes) -> None:
    first = open_ledger()
    await first.append(Summary("one", 1))
    await first.append(Summary("two", 1))
    await first.stop()
    [path] = first.files()
    with path.open("ab") as file:
        file.write(tail)
    second = open_ledger()
    entries = list(second.read())
    assert [type(entry.record) for entry in entries] == [Summary, Summary, Repaired]
    repaired = entries[-1].record
    assert isinstance(repaired, Repaired)
    assert (path.parent / repaired.kept).read_bytes() == tail


@pytest_twisted.ensureDeferred
async def test_a_file_with_nothing_but_a_torn_line_is_set_aside(open_ledger: Open) -> None:
    first = open_ledger()
    await first.append(Summary("one", 1))
    await first.stop()
    torn = first.files()[0].with_name("000000000002-2027-01-16.jsonl")
    torn.write_bytes(b'{"seq":2')
    second = open_ledger()
    await second.append(Summary("two", 1))
    assert summaries(second) == ["one", "two"]


@pytest_twisted.ensureDeferred
async def test_damage_before_whole_records_is_never_repaired(open_ledger: Open, tmp_path: Path) -> None:
    first = open_ledger()
    for n in range(3):
        await first.append(Summary(f"event {n}", n))
    await first.stop()
    [path] = first.files()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(LedgerBroken, match="damaged record before whole ones"):
        open_ledger()
    assert path.read_bytes() == lines[0] + b"garbage\n" + lines[2]


@pytest_twisted.ensureDeferred
async def test_a_changed_or_missing_record_is_found_by_reading(open_ledger: Open) -> None:
    ledger = open_ledger()
    for n in range(4):
        await ledger.append(Summary(f"event {n}", n))
    [path] = ledger.files()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole.replace(b"event 1", b"event 9"))
    with pytest.raises(LedgerBroken, match="record 2 is not the one"):
        list(ledger.read())
    path.write_bytes(lines[0] + lines[2] + lines[3])
    with pytest.raises(LedgerBroken, match="record 2 is missing"):
        list(ledger.read())
    path.write_bytes(whole)
    assert len(list(ledger.read())) == 4


@pytest_twisted.ensureDeferred
async def test_a_failed_write_fails_its_waiters_and_leaves_nothing_behind(
    open_ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger()
    await ledger.append(Summary("before", 1))
    real_fsync, real_write = os.fsync, os.write

    def torn_write(descriptor: int, data: bytes) -> int:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return real_write(descriptor, data)  # the reactor's own
        real_write(descriptor, bytes(data[:7]))
        raise OSError(28, "No space left on device")

    for name, broken in (("write", torn_write), ("fsync", _raise_io_error)):
        monkeypatch.setattr(os, name, broken)
        with pytest.raises(ProblemError) as caught:
            await ledger.append(Summary("never", 1))
        assert caught.value.problem.kind is Kind.STORAGE
        monkeypatch.setattr(os, "write", real_write)
        monkeypatch.setattr(os, "fsync", real_fsync)
    await ledger.append(Summary("after", 1))
    assert summaries(ledger) == ["before", "after"]
    assert len(ledger.files()) == 2


def _raise_io_error(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


@pytest_twisted.ensureDeferred
async def test_a_full_disk_stops_new_runs_and_batches_but_not_revocations(open_ledger: Open) -> None:
    ledger = open_ledger(reserve=1 << 62)
    for starting in (a_run(), BatchBegun("u", ("i",))):
        with pytest.raises(ProblemError) as caught:
            await ledger.append(starting)
        assert caught.value.problem.kind is Kind.STORAGE
    assert (await ledger.append(Revoked("c", "i", "f"))).seq == 1
    with pytest.raises(ProblemError):
        await ledger.append(a_run())
    await ledger.append(Revoked("c", "i", "f"))
    assert len(ledger.files()) == 1, "a refusal is no failed append: no new file for it"


@pytest_twisted.ensureDeferred
async def test_a_record_that_comes_while_the_coordinator_stops_says_so(open_ledger: Open) -> None:
    ledger = open_ledger()
    await ledger.stop()
    with pytest.raises(ProblemError) as caught:
        await ledger.append(Summary("late", 1))
    assert caught.value.problem.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("torn_by", ["a crash", "a failed write"])
def test_what_was_cut_does_not_come_back_with_the_next_loss_of_power(tmp_path: Path, torn_by: str) -> None:
    """What follows in another file is on the disk by then; a cut that isn't leaves damage before whole records."""
    storage = Storage(tmp_path / "ledger")
    with storage.patched():
        ledger = Ledger(reactor, storage.folder, lambda: MIDNIGHT)
        ledger.open()
        [first] = ledger._write_batch([Summary("first", 1)])
        assert isinstance(first, Entry)
        file = storage.folder / first.file
        if torn_by == "a crash":
            ledger._close()
            with file.open("ab") as torn:
                torn.write(b'{"seq":2,')
            storage.lose(Random(0), "all", "all")
            ledger = Ledger(reactor, storage.folder, lambda: MIDNIGHT)
            ledger.open()
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", lambda descriptor: os.close(-1))
                [problem] = ledger._write_batch([Summary("lost", 1)])
            assert isinstance(problem, ProblemError)
            storage._sync(os.open(file, os.O_RDONLY))  # it reached the disk all the same
        ledger._write_batch([Summary("second", 1)])
        ledger._close()
        storage.lose(Random(0), "nothing", "nothing")
        ledger = Ledger(reactor, storage.folder, lambda: MIDNIGHT)
        ledger.open()
        assert summaries(ledger) == ["first", "second"]


@pytest_twisted.ensureDeferred
async def test_files_without_a_line_at_the_end_hide_no_record(open_ledger: Open) -> None:
    first = open_ledger()
    await first.append(Summary("one", 1))
    await first.stop()
    for date in ("2027-01-16", "2027-01-17", "2027-01-18"):
        first.files()[0].with_name(f"000000000002-{date}.jsonl").touch()
    second = open_ledger()
    assert (await second.append(Summary("two", 1))).seq == 2
    assert summaries(second) == ["one", "two"]


@pytest_twisted.ensureDeferred
async def test_a_disk_that_does_not_say_what_it_has_left_takes_no_run_and_the_rest_of_the_batch(
    open_ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ledger = open_ledger(reserve=1)
    monkeypatch.setattr("shutil.disk_usage", broken)
    first = ledger.append(Summary("under way", 1))  # what follows is one batch
    run, revoked = ledger.append(a_run()), ledger.append(Revoked("n", "i", "f"))
    with pytest.raises(ProblemError) as caught:
        await run
    assert caught.value.problem.kind is Kind.STORAGE
    assert [(await first).seq, (await revoked).seq] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_below_the_reserve_a_run_does_not_slip_in_with_an_outcome(open_ledger: Open) -> None:
    ledger = open_ledger(reserve=1 << 60)
    both = [ledger.append(record) for record in (a_run(), Summary("an outcome", 1), a_run())]
    results = await DeferredList(both, consumeErrors=True)
    assert [done for done, _ in results] == [False, True, False]
    assert summaries(ledger) == ["an outcome"]
    assert [entry.seq for entry in ledger.read()] == [1]


@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_the_spare_file_makes_room_for_what_ends_trust_alone(
    open_ledger: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger()
    spare = tmp_path / "ledger" / "spare"
    await ledger.append(Summary("before", 1))
    assert spare.stat().st_size == SIZE

    def full(descriptor: int, data: bytes) -> int:
        if spare.exists() and stat.S_ISREG(os.fstat(descriptor).st_mode):  # the reactor's pipes go on
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    write = os.write
    monkeypatch.setattr(os, "write", full)
    records = (Summary("alone", 1), Summary("together", 1), Revoked("ann@desk", "id", "mark"))
    results = await DeferredList([ledger.append(record) for record in records], consumeErrors=True)
    assert [done for done, _ in results] == [False, False, True]
    monkeypatch.undo()
    await ledger.append(Summary("after", 1))
    assert summaries(ledger) == ["before", "after"]
    assert [type(entry.record) for entry in ledger.read()] == [Summary, Revoked, Summary]
    assert spare.stat().st_size == SIZE
