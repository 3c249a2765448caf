"""The first bytes of outputs in memory: once what is equal, and within bounds whatever comes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from clustersh.coordinator import heads
from clustersh.coordinator.heads import Head, HeadRoom, RunHeads, cut_head, whole_characters
from clustersh.wire.jobs import HEAD_LIMIT
from clustersh.wire.output import Stream, check_runs, encode_runs, shorten, split

PIECES = st.lists(
    st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(min_size=1, max_size=300)), max_size=20
)


def woven(pieces: list[tuple[Stream, bytes]]) -> tuple[bytes, bytes]:
    return b"".join(data for _, data in pieces), encode_runs((stream, len(data)) for stream, data in pieces)


@given(PIECES, st.integers(0, 7000))
def test_a_shorter_head_is_the_beginning_of_the_longer(pieces: list[tuple[Stream, bytes]], length: int) -> None:
    data, runs = woven(pieces)
    short, short_runs = shorten(data, runs, length)
    assert short == data[:length]
    check_runs(short, short_runs)
    for part, whole in zip(split(short, short_runs), split(data, runs), strict=True):
        assert whole.startswith(part)
    assert cut_head(Head(data, runs), length) == split(short, short_runs)


def test_equal_heads_are_one() -> None:
    room = HeadRoom()
    run = RunHeads(room)
    first, second = run.keep(b"x" * 1000, b"\xe8\x07"), run.keep(b"x" * 1000, b"\xe8\x07")
    assert first is second and room.taken == run.bytes == 1002
    assert run.keep(b"x" * 1000, b"\0\xe8\x07") is not first, "the same bytes of the other stream"
    run.leave_room()
    assert (room.taken, room.holders) == (0, 0)
    assert first.data == b"x" * 1000, "it stays with the jobs"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=60))
@settings(max_examples=200)
def test_heads_never_take_more_than_there_is_room_for(arrivals: list[tuple[int, int]]) -> None:
    room = HeadRoom(total=20_000)
    runs: dict[int, RunHeads] = {}
    kept: list[tuple[bytes, Head]] = []
    for number, (run, size) in enumerate(arrivals):
        data, way = woven([(Stream.STDOUT, b"%d" % number * size)] if size else [])
        head = runs.setdefault(run, RunHeads(room)).keep(data, way)
        kept.append((data, head))
        assert room.taken <= room.total
        assert room.taken == sum(each.bytes for each in runs.values())
    for data, head in kept:
        assert data.startswith(head.data)
        check_runs(head.data, head.runs)
    assert sum(head.cost for _, head in kept) == room.taken
    for each in runs.values():
        each.leave_room()
    assert (room.taken, room.holders) == (0, 0)


def test_who_comes_late_gets_what_is_left() -> None:
    room = HeadRoom(total=10_000)
    early, late = RunHeads(room), RunHeads(room)
    early.keep(*woven([(Stream.STDOUT, b"x" * 9_000)]))
    head = late.keep(*woven([(Stream.STDOUT, b"y" * 4_000)]))
    assert 900 < len(head) < 1_000 and room.taken <= room.total
    early.leave_room()
    assert len(late.keep(*woven([(Stream.STDOUT, b"z" * 4_000)]))) == 4_000


def test_the_longest_heads_of_a_run_are_shortened_and_the_short_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "RUN_HEADS", 1 << 20)
    run = RunHeads()
    short = [run.keep(*woven([(Stream.STDOUT, b"%d" % number)])) for number in range(100)]
    long = [run.keep(*woven([(Stream.STDERR, bytes([number]) * HEAD_LIMIT)])) for number in range(100)]
    assert run.bytes <= 1 << 20
    assert [head.data for head in short] == [b"%d" % number for number in range(100)]
    assert len({len(head) for head in long}) == 1, "none of them is better off for having come first"
    assert len(long[0]) >= (1 << 20) // 100 // 2, "at least half of what could be had"
    again = run.keep(*woven([(Stream.STDERR, b"\1" * HEAD_LIMIT)]))
    assert again is long[1], "also what was shortened is known again"


def test_a_character_that_a_cut_left_incomplete_is_left_out() -> None:
    assert whole_characters("grü".encode()[:-1]) == b"gr"
    assert whole_characters(b"\xff\xfe") == b"\xff\xfe"
