"""The index follows the ledger, catches up with it, and is made anew when it does not fit."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from clustersh.coordinator import history
from clustersh.coordinator.index import Index
from clustersh.coordinator.ledger import Ledger
from clustersh.coordinator.ledger_files import Entry, Head
from clustersh.coordinator.records import JobEnded, MachineRef, RunRefused, RunRequested
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Command, Outcome, OutputSummary, State
from clustersh.wire.problems import Kind, Problem, ProblemError

WS1, WS2 = MachineRef("ws1", "id-1"), MachineRef("ws2", "id-2")
make_uuid = UuidMaker(lambda: 1_800_000_000_000)


class Books:
    """A ledger and the index that follows it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(reactor, folder / "ledger", lambda: 1_800_000_000.0)
        self.index = Index(reactor, folder / "index.sqlite", self.ledger)
        self.ledger.subscribe(self.index.follow)
        self.ledger.open()
        self.ledger.start()
        self.index.start()

    async def stop(self) -> None:
        await self.ledger.stop()
        await self.index.stop()

    async def run(self, key: str = "", machine: MachineRef = WS1, client: str = "joshua@mba") -> str:
        uuid = make_uuid()
        await self.ledger.append(
            RunRequested(uuid, client, "c-1", key or uuid, "digest", machine.name, (machine,), Command(shell="true"))
        )
        return uuid

    async def end(self, uuid: str, outcome: Outcome, machine: MachineRef = WS1) -> None:
        await self.ledger.append(JobEnded(uuid, machine.name, machine.id, outcome, OutputSummary(3, 4), 1.5))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Callable[[], Books]]:
    made: list[Books] = []

    def one() -> Books:
        made.append(Books(tmp_path))
        return made[-1]

    yield one
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.stop()))


async def listed(books: Books, **wanted: object) -> list[tuple[str, State]]:
    page = await books.index.ask(lambda c: history.jobs(c, history.Filter(**wanted)))  # type: ignore[arg-type]
    return [(job.uuid, job.status) for job in page.jobs]


@pytest_twisted.ensureDeferred
async def test_a_question_sees_what_was_recorded_before_it(books: Callable[[], Books]) -> None:
    both = books()
    for _ in range(20):
        uuid = await both.run()
        assert (await listed(both))[0] == (uuid, State.REQUESTED)
        await both.end(uuid, Outcome.exited(0))
        assert (await listed(both))[0] == (uuid, State.COMPLETED)


@pytest_twisted.ensureDeferred
async def test_an_index_that_is_missing_or_behind_catches_up(books: Callable[[], Books], tmp_path: Path) -> None:
    first = books()
    uuids = [await first.run() for _ in range(5)]
    await first.stop()
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    second = books()
    assert [uuid for uuid, _ in await listed(second)] == uuids[::-1]


@pytest_twisted.ensureDeferred
async def test_an_index_that_could_not_catch_up_does_so_when_it_can(
    books: Callable[[], Books], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = books()
    uuids = [await first.run() for _ in range(3)]
    await listed(first)
    await first.stop()
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE place SET hash = 'x'")
    connection.close()
    second = books()
    read = second.ledger.read

    def failing(after: Head | None = None) -> Iterator[Entry]:
        yield next(read(after))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(second.ledger, "read", failing)
    for _ in range(2):
        with pytest.raises(ProblemError, match="the coordinator can't use its index: ") as caught:
            await listed(second)
        assert caught.value.problem.kind is Kind.STORAGE
    monkeypatch.undo()
    assert [uuid for uuid, _ in await listed(second)] == uuids[::-1]


@pytest.mark.parametrize("damage", ["garbage", "ahead", "another"])
@pytest_twisted.ensureDeferred
async def test_an_index_of_another_ledger_is_made_anew(books: Callable[[], Books], tmp_path: Path, damage: str) -> None:
    first = books()
    uuid = await first.run()
    await listed(first)
    await first.stop()
    path = tmp_path / "index.sqlite"
    if damage == "garbage":
        for name in ("index.sqlite-wal", "index.sqlite-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        path.write_bytes(b"not a database" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE place SET seq = 9" if damage == "ahead" else "UPDATE place SET hash = 'x'")
            connection.execute("DELETE FROM jobs")
        connection.close()
    assert [found for found, _ in await listed(books())] == [uuid]


@pytest_twisted.ensureDeferred
async def test_runs_are_found_by_their_key_and_by_their_end(books: Callable[[], Books]) -> None:
    both = books()
    uuid = await both.run(key="the key")
    known = await both.index.ask(lambda c: history.run_of_key(c, "c-1", "the key"))
    assert known is not None and known.uuid == uuid and known.problem is None
    assert await both.index.ask(lambda c: history.run_of_key(c, "another client", "the key")) is None
    for text in (uuid, uuid[-8:], uuid[-13:], uuid.upper()):
        assert await both.index.ask(lambda c, text=text: history.find_uuid(c, text)) == uuid  # type: ignore[misc]
    for text, kind in (("00000000", Kind.UNKNOWN_RUN), ("xyz", Kind.BAD_REQUEST), (uuid[-7:], Kind.BAD_REQUEST)):
        with pytest.raises(ProblemError) as caught:
            await both.index.ask(lambda c, text=text: history.find_uuid(c, text))  # type: ignore[misc]
        assert caught.value.problem.kind is kind


@pytest_twisted.ensureDeferred
async def test_an_end_that_several_runs_share_is_ambiguous(books: Callable[[], Books]) -> None:
    both = books()
    for start in ("01992f3e-0000-7000-8000", "01992f3e-0001-7000-8000"):
        record = RunRequested(f"{start}-0000c41f9a02", "c", "i", start, "d", "ws1", (WS1,), Command(shell="true"))
        await both.ledger.append(record)
    with pytest.raises(ProblemError) as caught:
        await both.index.ask(lambda c: history.find_uuid(c, "c41f9a02"))
    assert caught.value.problem.kind is Kind.AMBIGUOUS_ID


@pytest_twisted.ensureDeferred
async def test_history_filters_and_pages(books: Callable[[], Books]) -> None:
    both = books()
    done = await both.run()
    await both.end(done, Outcome.exited(0))
    failed = await both.run(machine=WS2, client="ann@desk")
    await both.end(failed, Outcome.exited(2), WS2)
    interrupted = await both.run()
    await both.end(interrupted, Outcome(State.INTERRUPTED, reason="the agent restarted"))
    waiting = await both.run()
    assert [u for u, _ in await listed(both)] == [waiting, interrupted, failed, done]
    assert [u for u, _ in await listed(both, machine="ws2")] == [failed]
    assert [u for u, _ in await listed(both, client="joshua@mba")] == [waiting, interrupted, done]
    assert [u for u, _ in await listed(both, states=(State.FAILED,))] == [interrupted, failed]
    assert [u for u, _ in await listed(both, since=1_800_000_001.0)] == []
    assert len(await listed(both, since=1_799_999_999.0)) == 4
    page = await both.index.ask(lambda c: history.jobs(c, history.Filter(limit=3)))
    assert page.next == failed
    assert [u for u, _ in await listed(both, before=page.next)] == [done]


@pytest_twisted.ensureDeferred
async def test_a_page_tears_no_run(books: Callable[[], Books]) -> None:
    both = books()
    older = await both.run()
    wide = make_uuid()
    machines = tuple(MachineRef(f"ws{n}", f"id-{n}") for n in range(5))
    await both.ledger.append(
        RunRequested(wide, "joshua@mba", "c-1", wide, "digest", "all", machines, Command(shell="true"))
    )
    newer = await both.run()
    found: list[tuple[str, str]] = []
    before, sizes = "", []
    while True:
        wanted = history.Filter(limit=2, before=before)
        page = await both.index.ask(lambda c, wanted=wanted: history.jobs(c, wanted))
        found += [(job.uuid, job.machine) for job in page.jobs]
        sizes.append(len(page.jobs))
        if page.next is None:
            break
        before = page.next
    assert sizes == [6, 1]
    assert found == [(newer, "ws1"), *((wide, f"ws{n}") for n in range(5)), (older, "ws1")]
    last = await both.index.ask(lambda c: history.jobs(c, history.Filter(limit=2, before=newer, machine="ws3")))
    assert [(job.machine, page.next) for job in last.jobs] == [("ws3", None)]
    some = history.Filter(machine_ids=("id-3", "id-2", "id-9"))
    page = await both.index.ask(lambda c: history.jobs(c, some))
    assert [(job.uuid, job.machine) for job in page.jobs] == [(wide, "ws2"), (wide, "ws3")]
    others = history.Filter(limit=2, before=newer, without_ids=("id-0", "id-2", "id-4", "id-9"))
    page = await both.index.ask(lambda c: history.jobs(c, others))
    assert [job.machine for job in page.jobs if job.uuid == wide] == ["ws1", "ws3"] and page.next == wide
    with pytest.raises(ProblemError) as caught:
        await both.index.ask(lambda c: history.machine_of(c, wide, "ws9"))
    assert caught.value.problem.hint == "it was for ws[0-4]"


@pytest_twisted.ensureDeferred
async def test_what_was_refused_is_remembered_with_its_reason(books: Callable[[], Books]) -> None:
    both = books()
    problem = Problem(type="unknown-machine", detail="no machine is called 'wss1'")
    uuid = make_uuid()
    await both.ledger.append(RunRefused(uuid, "c", "i", "k", "d", "wss1", Command(shell="true"), problem))
    known = await both.index.ask(lambda c: history.run_of_key(c, "i", "k"))
    assert known is not None and known.problem == problem


@pytest_twisted.ensureDeferred
async def test_open_runs_are_those_without_an_outcome(books: Callable[[], Books]) -> None:
    both = books()
    ended = await both.run()
    await both.end(ended, Outcome.exited(0))
    waiting = await both.run(machine=WS2)
    [loaded] = await both.index.ask(history.open_runs)
    assert loaded.open.uuid == waiting
    assert loaded.open.jobs["id-2"].epoch == 0


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_is_told_and_then_worked_with_again(books: Callable[[], Books]) -> None:
    both = books()
    uuid = await both.run()

    def full(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(ProblemError) as caught:
        await both.index.ask(full)
    assert caught.value.problem.kind is Kind.STORAGE
    assert [found for found, _ in await listed(both)] == [uuid]


@pytest_twisted.ensureDeferred
async def test_a_key_is_looked_up_without_taking_in_what_others_recorded(books: Callable[[], Books]) -> None:
    """Else every run would take a transaction of its own: each begins with that question."""
    first = books()
    await first.index.ask(lambda connection: None)

    def seq(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT seq FROM place").fetchone()["seq"])

    uuid = await first.run("mine")
    assert await first.index.ask_of_key("c-1", "other", seq) == first.ledger.head.seq - 1
    assert await first.index.ask_of_key("c-2", "mine", seq) == first.ledger.head.seq - 1
    known = await first.index.ask_of_key(
        "c-1", "mine", lambda connection: history.run_of_key(connection, "c-1", "mine")
    )
    assert known is not None
    assert known.uuid == uuid
    assert await first.index.ask_of_key("c-1", "other", seq) == first.ledger.head.seq


@pytest_twisted.ensureDeferred
async def test_a_key_is_found_although_taking_it_in_failed(books: Callable[[], Books]) -> None:
    first = books()

    def full(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    uuid = await first.run("mine")
    with pytest.raises(ProblemError):
        await first.index.ask(full)
    known = await first.index.ask_of_key(
        "c-1", "mine", lambda connection: history.run_of_key(connection, "c-1", "mine")
    )
    assert known is not None
    assert known.uuid == uuid
