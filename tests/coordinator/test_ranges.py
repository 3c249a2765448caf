"""Byte ranges, as RFC 9110 has them."""

from __future__ import annotations

import pytest
import pytest_twisted

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request
from clustersh.coordinator.ranges import Span, asked_range, span_of
from clustersh.coordinator.routes import CLIENTS, OCTETS, Answer
from clustersh.trust.identity import Role

from .conftest import Front

DATA = b"0123456789"


async def data(request: Request, caller: Caller) -> Answer:
    asked = asked_range(request)
    if asked is None:
        return Answer(DATA, content_type=OCTETS)
    span = span_of(request, asked, len(DATA))
    headers = {"Content-Range": span.content_range(len(DATA))}
    return Answer(DATA[span.offset : span.offset + span.length], 206, OCTETS, headers)


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, DATA, "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-100", 416, None, "bytes */10"),
        ("bytes=0-1,4-5", 200, DATA, None),
        ("bytes=4-2", 200, DATA, None),
        ("lines=0-1", 200, DATA, None),
        ("bytes", 200, DATA, None),
        ("", 200, DATA, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_one_range_is_answered(
    front: Front, asked: str, status: int, content: bytes | None, told: str | None
) -> None:
    front.api.add("GET", "/v1/data", data, CLIENTS)
    reply = await front.call("GET", "/v1/data", Role.FRONTEND, headers={"Range": asked})
    assert (reply.status, reply.headers.get("content-range")) == (status, told)
    if content is None:
        assert reply.problem == "range-not-satisfiable"
    else:
        assert reply.content == content


@pytest_twisted.ensureDeferred
async def test_a_condition_that_nothing_meets_gives_all(front: Front) -> None:
    front.api.add("GET", "/v1/data", data, CLIENTS)
    headers = {"Range": "bytes=0-1", "If-Range": '"x"'}
    assert (await front.call("GET", "/v1/data", Role.FRONTEND, headers=headers)).status == 200


def test_an_output_that_grows_has_no_size_yet() -> None:
    assert Span(3, 4).content_range(None) == "bytes 3-6/*"
