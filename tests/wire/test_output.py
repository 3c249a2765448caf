"""Interleaved output: run lengths against a plain model, and bytes that a peer made up."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.wire import output
from clustersh.wire.output import RunsError, Stream

Written = list[tuple[Stream, bytes]]
writes = st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(max_size=300)), max_size=40)


def encoded(written: Written) -> tuple[bytes, bytes]:
    data = b"".join(piece for _, piece in written)
    return data, output.encode_runs((stream, len(piece)) for stream, piece in written)


def joined(written: Written) -> Written:
    """The model: neighbours of one stream joined, nothing empty."""
    result: Written = []
    for stream, piece in written:
        if not piece:
            continue
        if result and result[-1][0] is stream:
            result[-1] = (stream, result[-1][1] + piece)
        else:
            result.append((stream, piece))
    return result


@given(writes)
def test_pieces_come_back_in_order(written: Written) -> None:
    assert list(output.pieces(*encoded(written))) == joined(written)


@given(writes)
def test_split_gives_each_stream_its_own(written: Written) -> None:
    stdout, stderr = output.split(*encoded(written))
    assert stdout == b"".join(piece for stream, piece in written if stream is Stream.STDOUT)
    assert stderr == b"".join(piece for stream, piece in written if stream is Stream.STDERR)


@given(st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.integers(0, 1 << 57)), max_size=20))
def test_run_lengths_round_trip(runs: list[tuple[Stream, int]]) -> None:
    decoded = list(output.decode_runs(output.encode_runs(runs)))
    for stream in (Stream.STDOUT, Stream.STDERR):
        assert sum(n for s, n in decoded if s is stream) == sum(n for s, n in runs if s is stream)


def test_alternating_single_bytes_cost_a_byte_each() -> None:
    runs = output.encode_runs([(Stream.STDOUT, 1), (Stream.STDERR, 1)] * 1000)
    assert len(runs) == 2000


def test_stderr_alone_begins_with_an_empty_run() -> None:
    assert output.encode_runs([(Stream.STDERR, 3)]) == b"\x00\x03"
    assert output.encode_runs([]) == b""


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_hostile_runs_split_all_of_the_data_or_raise_runs_error(data: bytes, runs: bytes) -> None:
    with contextlib.suppress(RunsError):
        stdout, stderr = output.split(data, runs)
        assert len(stdout) + len(stderr) == len(data)


@pytest.mark.parametrize(
    ("data", "runs", "why"),
    [
        (b"abc", b"\x04", "more bytes"),
        (b"abc", b"\x02", "fewer bytes"),
        (b"abc", b"", "fewer bytes"),
        (b"abc", b"\x83", "middle of a number"),
        (b"abc", b"\xff" * 9 + b"\x01", "too large"),
        (b"abc", b"\x80" * 1000, "too large"),
    ],
)
def test_what_does_not_fit_is_refused(data: bytes, runs: bytes, why: str) -> None:
    with pytest.raises(RunsError, match=why):
        output.split(data, runs)
