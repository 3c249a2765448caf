"""REST bodies, commands and problems."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.wire import pairing, problems, rest
from clustersh.wire.codec import WireError, decode_json, encode_json
from clustersh.wire.jobs import MAX_COMMAND, BlobRef, Command, Outcome, State

RUN = {"target": "ws1", "command": {"shell": "ls"}}


def run_request(**more: Any) -> rest.RunRequest:
    return decode_json(json.dumps({**RUN, **more}).encode(), rest.RunRequest)


def test_a_run_request_has_defaults() -> None:
    request = run_request()
    assert (request.timeout_s, request.limit_bytes, request.stdin) == (300.0, 128 << 10, False)
    assert decode_json(encode_json(request), rest.RunRequest) == request


@pytest.mark.parametrize(
    "more",
    [
        {"timeout_s": -1},
        {"timeout_s": 367 * 86400},
        {"idle_timeout_s": -0.1},
        {"limit_bytes": -1},
        {"cwd": "a\0b"},
        {"cwd": "x" * 5000},
        {"target": "x" * 65537},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0y"}},
        {"env": {"CLUSTERSH_JOB": "x"}},
        {"env": {"A": "x" * (1 << 20)}},
        {"command": {}},
        {"command": {"shell": ""}},
        {"command": {"argv": []}},
        {"command": {"shell": "a", "argv": ["b"]}},
        {"command": {"shell": "a\0b"}},
        {"command": {"argv": ["a", "b\0"]}},
        {"command": {"shell": "x" * (MAX_COMMAND + 1)}},
        {"command": {"shell": "ä" * (MAX_COMMAND // 2 + 1)}},
        {"command": {"script": {"sha256": "nothex", "size": 1}}},
        {"files": {"sha256": "a" * 64, "size": -1}},
        {"surprise": 1},
    ],
    ids=lambda more: str(more)[:60],
)
def test_what_no_run_can_ask_for(more: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        run_request(**more)


def test_an_error_repeats_no_secret() -> None:
    with pytest.raises(WireError) as refused:
        run_request(env={"CLUSTERSH_X": "hunter2"})
    assert "hunter2" not in str(refused.value)


@given(st.binary(max_size=100))
def test_bytes_travel_in_json_whatever_they_are(data: bytes) -> None:
    shown = rest.text_or_base64(data)
    assert rest.to_bytes(shown) == data
    body = encode_json(shown)
    assert rest.to_bytes(decode_json(body, str | rest.Base64)) == data  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["x", "====", "é", "a b c d"])
def test_bad_base64_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        rest.to_bytes(rest.Base64(text))


@given(st.binary(max_size=300))
def test_hostile_bodies_raise_nothing_but_wire_error(content: bytes) -> None:
    for kind in (rest.RunRequest, rest.BlobNames, rest.Approve, rest.NameOf, pairing.PairStart, pairing.PairReveal):
        with contextlib.suppress(WireError):
            decode_json(content, kind)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command(shell="ls -la | wc"), "ls -la | wc"),
        (Command(argv=("echo", "a b")), "echo 'a b'"),
        (Command(script=BlobRef("a" * 64, 3, "deploy.sh")), "(script deploy.sh)"),
        (Command(script=BlobRef("a" * 64, 3)), "(script aaaaaaaaaaaa)"),
    ],
)
def test_a_command_reads_as_people_write_it(command: Command, text: str) -> None:
    assert command.text == text


def test_exit_codes_make_outcomes() -> None:
    assert Outcome.exited(0).state is State.COMPLETED
    assert Outcome.exited(2) == Outcome(State.FAILED, exit_code=2)


@pytest.mark.parametrize("state", [State.REQUESTED, State.RUNNING])
def test_a_job_on_its_way_has_no_outcome(state: State) -> None:
    with pytest.raises(ValueError, match="not how a job ends"):
        Outcome(state, exit_code=0)


@pytest.mark.parametrize("parts", [{}, {"exit_code": 1, "reason": "x"}, {"signal": 9, "reason": "x"}])
def test_an_outcome_has_exactly_one_of_three(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Outcome(State.FAILED, **parts)


@pytest.mark.parametrize("kind", list(problems.Kind))
def test_every_kind_of_problem_has_a_status_and_survives_the_wire(kind: problems.Kind) -> None:
    error = problems.ProblemError(kind, "it is so", hint="do this", uuid="u", started=None)
    received = decode_json(encode_json(error.problem), problems.Problem)
    assert problems.ProblemError.received(received).problem == error.problem
    assert received.kind is kind
    assert 400 <= received.status < 600


def test_a_newer_peers_problem_is_an_internal_one_here() -> None:
    assert problems.Problem("from-the-future", "x").kind is problems.Kind.INTERNAL
