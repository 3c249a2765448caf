"""The link's messages, and frames that a hostile peer made up."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.wire import link
from clustersh.wire.codec import WireError, decode_json, encode_json
from clustersh.wire.jobs import Command, Outcome, State

counts = st.integers(min_value=0, max_value=(1 << 63) - 1)
seconds = st.floats(min_value=0, max_value=1e12)
texts = st.text(max_size=40)
witnesses = st.builds(link.Witness, seq=counts, hash=texts)
outcomes = st.one_of(
    st.builds(Outcome.exited, st.integers(-(1 << 31), (1 << 31) - 1)),
    st.builds(Outcome, st.just(State.TIMED_OUT), signal=st.integers(1, 64)),
    st.builds(Outcome, st.just(State.INTERRUPTED), reason=st.text(max_size=40)),
)
commands = st.one_of(
    st.builds(Command, shell=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40)),
    st.builds(Command, argv=st.tuples(st.just("ls"), st.just("-la"))),
)
from_agent = st.one_of(
    st.builds(link.Hello, version=texts, instance=texts, store=texts, clock=seconds, facts=st.builds(link.Facts)),
    st.builds(link.Pulse, clock=seconds),
    st.builds(link.Started, uuid=texts),
    st.builds(link.Ended, uuid=texts, outcome=outcomes, head=st.binary(max_size=64), duration_s=seconds),
    st.builds(link.Chunk, request=counts, offset=counts, data=st.binary(max_size=64), size=counts, ended=st.booleans()),
    st.builds(link.StdinTaken, request=counts, offset=counts, closed=st.booleans()),
    st.builds(link.Failed, request=counts, type=texts, detail=texts),
)
from_coordinator = st.one_of(
    st.builds(link.Welcome, epoch=counts, machine=texts, open=st.tuples(texts), witness=witnesses),
    st.builds(
        link.Start,
        epoch=counts,
        start_by=seconds,
        uuid=texts,
        client=texts,
        command=commands,
        witness=witnesses,
        env=st.dictionaries(texts, texts, max_size=3),
    ),
    st.builds(link.Cancel, uuid=texts),
    st.builds(link.Acknowledge, uuid=texts, witness=witnesses),
    st.builds(link.Read, request=counts, uuid=texts, stream=st.sampled_from(link.Stream), offset=counts, length=counts),
    st.builds(link.StopRead, request=counts),
    st.builds(link.Stdin, request=counts, uuid=texts, offset=counts, data=st.binary(max_size=64)),
)


@given(from_agent)
def test_what_an_agent_says_round_trips(message: link.FromAgent) -> None:
    assert link.decode_from_agent(link.encode(message)) == message


@given(from_coordinator)
def test_what_a_coordinator_says_round_trips(message: link.FromCoordinator) -> None:
    assert link.decode_from_coordinator(link.encode(message)) == message


@given(st.one_of(from_agent, from_coordinator), st.data())
def test_damaged_frames_raise_nothing_but_wire_error(message: Any, data: st.DataObject) -> None:
    frame = bytearray(link.encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    cut = data.draw(st.integers(0, len(frame)))
    frame[position] = data.draw(st.integers(0, 255))
    for payload in (bytes(frame), bytes(frame[:cut])):
        for decode in (link.decode_from_agent, link.decode_from_coordinator):
            with contextlib.suppress(WireError):
                decode(payload)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_wire_error(payload: bytes) -> None:
    for decode in (link.decode_from_agent, link.decode_from_coordinator):
        with contextlib.suppress(WireError):
            decode(payload)
    with contextlib.suppress(WireError):
        decode_json(payload, dict)


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91" * 100_000, b"\xdf\xff\xff\xff\xff", b"\x81\xa2is\xa1\xff"])
def test_bytes_that_parsers_trip_over(payload: bytes) -> None:
    for decode in (link.decode_from_agent, link.decode_from_coordinator):
        with pytest.raises(WireError):
            decode(payload)


@pytest.mark.parametrize(
    "message",
    [
        {"is": "pulse", "clock": math.nan},
        {"is": "pulse", "clock": math.inf},
        {"is": "pulse", "clock": -1.0},
        {"is": "started", "uuid": "u" * 5000},
        {"is": "chunk", "request": 1, "offset": -1, "data": b"", "size": 0, "ended": True},
        {"is": "ended", "uuid": "u", "outcome": {"state": "completed", "exit_code": 0}, "duration_s": math.nan},
        {"is": "ended", "uuid": "u", "outcome": {"state": "running", "exit_code": 0}},
        {"is": "ended", "uuid": "u", "outcome": {"state": "failed", "exit_code": 1, "signal": 9}},
        {"is": "ended", "uuid": "u", "outcome": {"state": "failed"}},
    ],
)
def test_lies_about_numbers_texts_and_outcomes_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        link.decode_from_agent(msgspec.msgpack.encode(message))


def test_each_side_refuses_the_other_sides_messages() -> None:
    with pytest.raises(WireError):
        link.decode_from_coordinator(link.encode(link.Started("u")))
    with pytest.raises(WireError):
        link.decode_from_agent(link.encode(link.Cancel("u")))


def test_an_unknown_field_is_ignored_so_that_a_newer_peer_is_understood() -> None:
    payload = msgspec.msgpack.encode({"is": "started", "uuid": "u", "later": 1})
    assert link.decode_from_agent(payload) == link.Started("u")


def test_a_blob_is_named_by_hex_digits_only() -> None:
    start: dict[str, Any] = {
        "is": "start",
        "epoch": 1,
        "start_by": 1.0,
        "uuid": "u",
        "client": "c",
        "command": {"shell": "true"},
        "witness": {"seq": 0, "hash": ""},
    }
    good = {"sha256": "a" * 64, "size": 1}
    assert link.decode_from_coordinator(msgspec.msgpack.encode({**start, "files": good}))
    for name in ("../" * 21 + "x", "A" * 64, "a" * 64 + "\n"):
        with pytest.raises(WireError):
            link.decode_from_coordinator(msgspec.msgpack.encode({**start, "files": {**good, "sha256": name}}))


def test_text_that_utf8_cannot_hold_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="UTF-8"):
        encode_json({"text": "\ud800"})


@pytest.mark.parametrize("content", [b"[" * 100_000, b'"\xff"', b"{", b""])
def test_json_that_parsers_trip_over(content: bytes) -> None:
    with pytest.raises(WireError):
        decode_json(content, list)
