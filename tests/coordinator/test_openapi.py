"""What the API says of itself, made of a table of calls."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest_twisted

from clustersh.coordinator.callers import Caller
from clustersh.coordinator.http import Request
from clustersh.coordinator.openapi import OpenApiCalls, describe
from clustersh.coordinator.routes import ADMINS, CLIENTS, OCTETS, WAIT, Answer, Bytes, Route
from clustersh.trust.identity import Role
from clustersh.wire.problems import Kind
from clustersh.wire.queries import JobsQuery, StdinQuery
from clustersh.wire.rest import Health, Run, RunRequest, StdinProgress

from .conftest import Front


async def runs(request: Request, caller: Caller, body: RunRequest) -> Answer:
    """Take a run in.

    And more of it.
    """
    raise NotImplementedError


async def piece(request: Request, caller: Caller, machine: str, body: bytes, query: StdinQuery) -> StdinProgress:
    """Take a piece."""
    return StdinProgress(query.offset)


async def forget(request: Request, caller: Caller, body: bytes) -> None:
    """Forget it."""


async def health(request: Request) -> Health:
    """Say that it runs."""
    return Health("clusterd", "1")


ROUTES = [
    Route("POST", "/v1/runs", runs, CLIENTS, RunRequest, answers={200: Run, 202: Run}, headers=(WAIT,)),
    Route("PUT", "/v1/<machine>/stdin", piece, CLIENTS, Bytes(9), query=StdinQuery, problems=(Kind.NOT_RUNNING,)),
    Route("POST", "/v1/forget", forget, ADMINS, Bytes(9), answers={}),
    Route("GET", "/v1/forget", forget, ADMINS, query=JobsQuery, answers={200: (OCTETS,)}),
    Route("GET", "/health", health, None),
]


def call(method: str, path: str) -> Any:
    return json.loads(msgspec.json.encode(describe(ROUTES)))["paths"][path][method]


def test_the_answers_are_those_that_the_handler_returns_or_the_route_says() -> None:
    answers = call("post", "/v1/runs")["responses"]
    assert answers["202"]["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Run"}}}
    assert "content" not in call("post", "/v1/forget")["responses"]["204"]
    assert list(call("get", "/v1/forget")["responses"]["200"]["content"]) == [OCTETS]
    assert call("get", "/health")["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "Health"
    )


def test_what_a_call_takes_is_described() -> None:
    stdin = call("put", "/v1/{machine}/stdin")
    assert [(each["name"], each["in"]) for each in stdin["parameters"]] == [
        ("machine", "path"),
        ("offset", "query"),
        ("end", "query"),
    ]
    assert stdin["requestBody"]["content"] == {OCTETS: {"schema": {}}}
    run = call("post", "/v1/runs")
    assert [each["name"] for each in run["parameters"]] == ["Prefer"]
    assert (run["summary"], run["description"]) == ("Take a run in.", "And more of it.")
    since = next(each for each in call("get", "/v1/forget")["parameters"] if each["name"] == "since")
    assert (since["schema"]["type"], since["schema"]["format"]) == ("string", "date-time")


def test_a_call_is_refused_with_problems_of_its_own_and_those_of_its_form() -> None:
    stdin, plain = call("put", "/v1/{machine}/stdin")["responses"], call("get", "/health")["responses"]
    assert set(stdin) == {"200", "400", "401", "403", "404", "409", "413", "500"}
    assert stdin["409"]["description"] == "A problem: `not-running`."
    assert list(stdin["409"]["content"]) == ["application/problem+json"]
    assert set(plain) == {"200", "400", "403", "500"}


def test_the_roles_are_named() -> None:
    assert call("post", "/v1/runs")["security"] == [{"certificate": ["admin"]}, {"certificate": ["frontend"]}]
    assert call("post", "/v1/forget")["security"] == [{"certificate": ["admin"]}]
    assert call("get", "/health")["security"] == []


def test_patterns_are_as_json_schema_has_them() -> None:
    document = describe(ROUTES)
    assert not re.search(r"\\[AZ]", json.dumps(document))
    assert document["components"]["schemas"]["BlobRef"]["properties"]["sha256"]["pattern"] == "^[0-9a-f]{64}$"


@pytest_twisted.ensureDeferred
async def test_it_is_served_to_clients(front: Front) -> None:
    OpenApiCalls(front.api).add_to(front.api)
    assert (await front.call("GET", "/v1/openapi.json", Role.AGENT)).problem == "wrong-role"
    reply = await front.call("GET", "/v1/openapi.json", Role.FRONTEND)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json["openapi"] == "3.1.0"
    assert list(reply.json["paths"]) == ["/v1/openapi.json"]


@pytest_twisted.ensureDeferred
async def test_query_parameters_are_checked_and_others_are_refused(front: Front) -> None:
    front.api.add("PUT", "/v1/stdin/<machine>", piece, CLIENTS, Bytes(9), query=StdinQuery)
    front.api.add("POST", "/v1/forget", forget, ADMINS, Bytes(9))
    good = await front.call("PUT", "/v1/stdin/ws1?offset=1&offset=7&end=true", Role.FRONTEND)
    assert good.json == {"offset": 7, "closed": False}
    for query in (
        "offset=-1",
        "offset=x",
        "offset=",
        "end=maybe",
        "ofset=7",
        "offset=9223372036854775808",
        "offset=%ff",
    ):
        reply = await front.call("PUT", f"/v1/stdin/ws1?{query}", Role.FRONTEND)
        assert (reply.status, reply.problem) == (400, "bad-request"), query
    assert (await front.call("POST", "/v1/forget?all=true", Role.ADMIN)).problem == "bad-request"
