"""Frames, from the coordinator that makes them to the command that takes them apart, however they are cut."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from clustersh.coordinator.rest_jobs import _frame
from clustersh.frontend.reading import Reading
from clustersh.wire.link import Chunk
from clustersh.wire.output import Stream, encode_runs

PIECES = st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(max_size=40)), max_size=12)


def chunk(pieces: list[tuple[Stream, bytes]]) -> Chunk:
    data = b"".join(data for _, data in pieces)
    return Chunk(1, 0, data, len(data), True, encode_runs((stream, len(data)) for stream, data in pieces))


def joined(pieces: list[tuple[Stream, bytes]]) -> list[tuple[Stream, bytes]]:
    """Return *pieces* without the empty ones, neighbours of one stream as one."""
    whole = [(stream, data) for stream, data in pieces if data]
    return [(stream, b"".join(data for _, data in run)) for stream, run in groupby(whole, lambda piece: piece[0])]


@given(st.lists(PIECES, max_size=4), st.integers(1, 50), st.booleans())
def test_what_is_framed_comes_out_in_its_order(chunks: list[list[tuple[Stream, bytes]]], cut: int, view: bool) -> None:
    body = b"".join(_frame(chunk(pieces)) for pieces in chunks)
    reading = Reading("ws1", "uuid", offset=7)
    assert dict(reading.ask()) == {"stream": "both", "offset": "7"}
    found: list[tuple[Stream, bytes]] = []
    for start in range(0, len(body), cut):
        piece = body[start : start + cut]
        found += [(stream, bytes(data)) for stream, data in reading.pieces(memoryview(piece) if view else piece)]
    expected = [piece for pieces in chunks for piece in pieces]
    assert joined(found) == joined(expected)
    assert reading.delivered == reading.position - 7 == sum(len(data) for _, data in expected)


def test_a_part_is_asked_for_from_where_it_was_cut_off() -> None:
    reading = Reading("ws 1", "uuid", Stream.STDOUT, offset=100, length=10)
    assert reading.path == "/v1/jobs/ws%201/uuid/output"
    reading.ask()
    reading.begin({"clustersh-offset": "100"})
    assert [bytes(data) for _, data in reading.pieces(b"abcd")] == [b"abcd"]
    assert not reading.complete
    assert dict(reading.ask()) == {"stream": "stdout", "offset": "104", "length": "6"}
    assert not reading.answered
    list(reading.pieces(b"efghij"))
    assert reading.complete


def test_lines_from_the_end_are_asked_for_once_and_then_by_their_offset() -> None:
    reading = Reading("ws1", "uuid", Stream.STDERR, tail=3)
    assert dict(reading.ask()) == {"stream": "stderr", "tail": "3"}
    reading.begin({"clustersh-offset": "5000"})
    list(reading.pieces(b"12"))
    assert dict(reading.ask()) == {"stream": "stderr", "offset": "5002"}
