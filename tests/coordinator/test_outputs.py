"""Reading an output through a link: in order, in a bounded window, and nothing taken on the agent's word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from clustersh.coordinator.outputs import Outputs, Wanted
from clustersh.coordinator.read_ahead import FEWEST, MOST, SHARED
from clustersh.coordinator.rest_jobs import _body as body_of
from clustersh.wire.link import MAX_CHUNK, MAX_READS, Chunk, Read, Stdin
from clustersh.wire.output import Stream, encode_runs
from clustersh.wire.problems import Kind, ProblemError


class FakeBus:
    """Answers reads from *data*, at once or when told; *ended* says whether the job has."""

    def __init__(self, data: bytes, *, ended: bool = True, at_once: bool = True) -> None:
        self.data = data
        self.ended = ended
        self.at_once = at_once
        self.waiting: list[tuple[Read, Deferred[Chunk]]] = []
        self.most = 0
        self.cancelled = 0
        self.lie: Callable[[Chunk], Chunk] = lambda chunk: chunk
        self.room = MAX_READS

    def ask(self, machine_id: str, question: Callable[[int], Read | Stdin]) -> Deferred[Chunk]:
        read = question(1)
        assert isinstance(read, Read)

        def cancelled(_: Deferred[Chunk]) -> None:
            self.cancelled += 1

        if len(self.waiting) >= self.room:
            raise ProblemError(Kind.RATE_LIMITED, "too many readers on that machine")
        answer: Deferred[Chunk] = Deferred(cancelled)
        self.waiting.append((read, answer))
        self.most = max(self.most, len(self.waiting))
        if self.at_once:
            self.answer()
        return answer

    def answer(self) -> None:
        read, answer = self.waiting.pop(0)
        data = self.data[read.offset : read.offset + read.length]
        runs = encode_runs([(Stream.STDOUT, len(data))]) if read.stream is Stream.BOTH else b""
        answer.callback(self.lie(Chunk(read.request, read.offset, data, len(self.data), self.ended, runs)))


async def read_all(bus: FakeBus, wanted: Wanted, clock: Callable[[], float] = lambda: 0.0) -> bytes:
    return b"".join([chunk.data async for chunk in Outputs(bus, clock).chunks(wanted)])  # type: ignore[arg-type]


def wanted(offset: int = 0, length: int | None = None, *, follow: bool = False) -> Wanted:
    return Wanted("id", "uuid", Stream.BOTH, offset, length, follow)


@given(
    size=st.integers(0, 5 * MAX_CHUNK),
    offset=st.integers(0, 6 * MAX_CHUNK),
    length=st.none() | st.integers(0, 6 * MAX_CHUNK),
)
@settings(deadline=None, max_examples=60)
def test_any_part_is_the_part_asked_for(size: int, offset: int, length: int | None) -> None:
    data = bytes(index % 251 for index in range(256)) * (size // 256 + 1)
    bus = FakeBus(data[:size])
    work = Deferred.fromCoroutine(read_all(bus, wanted(offset, length)))
    found: list[bytes] = []
    work.addCallback(found.append)
    assert found == [data[:size][offset : None if length is None else offset + length]]


@pytest_twisted.ensureDeferred
async def test_the_window_grows_while_the_way_is_long_but_not_beyond_its_bound() -> None:
    bus = FakeBus(b"x" * (64 * MAX_CHUNK), at_once=False)
    work = Deferred.fromCoroutine(read_all(bus, wanted()))
    while bus.waiting:
        bus.answer()
    assert await work == bus.data
    assert 4 < bus.most <= MOST


@pytest_twisted.ensureDeferred
async def test_a_reader_that_leaves_takes_its_questions_back_and_leaves_its_window_to_others() -> None:
    bus = FakeBus(b"x" * (64 * MAX_CHUNK), at_once=False)
    outputs = Outputs(bus, lambda: 0.0)  # type: ignore[arg-type]

    async def read() -> None:
        async for _ in outputs.chunks(wanted()):
            pass

    work = Deferred.fromCoroutine(read())
    for _ in range(20):
        bus.answer()
    outstanding = len(bus.waiting)
    assert outputs.allowance.left < SHARED
    work.addErrback(lambda _: None)
    work.cancel()
    assert bus.cancelled == outstanding > FEWEST
    assert outputs.allowance.left == SHARED


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_given_up_takes_its_questions_back_whatever_still_refers_to_it() -> None:
    bus = FakeBus(b"x" * (64 * MAX_CHUNK))
    outputs = Outputs(bus, lambda: 0.0)  # type: ignore[arg-type]
    chunks = outputs.chunks(wanted())
    body = body_of(await anext(chunks), chunks, lambda chunk: chunk.data)
    await anext(body)
    bus.at_once = False
    waiting = Deferred.fromCoroutine(anext(body))
    bus.answer()
    await waiting
    assert (len(bus.waiting), bus.cancelled) == (FEWEST - 1, 0)
    assert outputs.allowance.left < SHARED
    await body.aclose()
    assert bus.cancelled == FEWEST - 1
    assert outputs.allowance.left == SHARED


def reading(outputs: Outputs) -> Deferred[int]:
    """Read all there is and fire with how much that was."""

    async def read() -> int:
        return sum([len(chunk.data) async for chunk in outputs.chunks(wanted())])

    return Deferred.fromCoroutine(read())


@pytest_twisted.ensureDeferred
async def test_readers_far_ahead_leave_room_for_those_who_begin() -> None:
    bus = FakeBus(b"x" * (2 * MOST * MAX_CHUNK), at_once=False)
    outputs = Outputs(bus, lambda: 0.0)  # type: ignore[arg-type]
    readers = [reading(outputs) for _ in range(SHARED // (MOST - FEWEST) + 1)]
    while outputs.allowance.left:
        bus.answer()
    assert len(bus.waiting) > SHARED
    readers += [reading(outputs) for _ in range(20)]
    while bus.waiting:
        bus.answer()
    assert [await reader for reader in readers] == [len(bus.data)] * len(readers)


@pytest_twisted.ensureDeferred
async def test_a_reader_goes_on_with_what_is_under_way_where_the_link_takes_no_more_reads() -> None:
    bus = FakeBus(b"x" * (10 * MAX_CHUNK), at_once=False)
    bus.room = FEWEST + 2
    outputs = Outputs(bus, lambda: 0.0)  # type: ignore[arg-type]
    readers = [reading(outputs), reading(outputs)]
    while bus.waiting:
        bus.answer()
    assert [await reader for reader in readers] == [len(bus.data)] * 2
    assert bus.most == bus.room


@pytest_twisted.ensureDeferred
async def test_a_short_way_is_not_asked_for_more_than_it_holds() -> None:
    bus = FakeBus(b"x" * (64 * MAX_CHUNK), at_once=False)
    now = 0.0
    work = Deferred.fromCoroutine(read_all(bus, wanted(), lambda: now))
    while bus.waiting:
        now += 0.25  # each piece takes a quarter of a second, however many are under way
        bus.answer()
    assert await work == bus.data
    assert FEWEST <= bus.most <= 2 * FEWEST


@pytest_twisted.ensureDeferred
async def test_following_goes_on_until_the_job_has_ended() -> None:
    bus = FakeBus(b"first ", ended=False)
    seen: list[bytes] = []
    async for chunk in Outputs(bus, lambda: 0.0).chunks(wanted(follow=True)):  # type: ignore[arg-type]
        seen.append(chunk.data)
        if len(seen) == 1:
            bus.data += b"second"
        elif len(seen) == 2:
            bus.ended = True
    assert b"".join(seen) == b"first second"


@pytest.mark.parametrize(
    "lie",
    [
        lambda c: Chunk(c.request, c.offset, c.data + b"more", c.size, c.ended, c.runs),
        lambda c: Chunk(c.request, c.offset + 1, c.data, c.size, c.ended, c.runs),
        lambda c: Chunk(c.request, c.offset, c.data, -1, c.ended, c.runs),
        lambda c: Chunk(c.request, c.offset, c.data, c.size, c.ended, b"\xff"),
        lambda c: Chunk(c.request, c.offset, b"", c.size + MAX_CHUNK, False, b""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_agent_that_lies_about_sizes_is_not_believed(lie: Callable[[Chunk], Chunk]) -> None:
    bus = FakeBus(b"x" * (2 * MAX_CHUNK))
    bus.lie = lie
    with pytest.raises(ProblemError):
        await read_all(bus, wanted(length=2 * MAX_CHUNK - 4))
