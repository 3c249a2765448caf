"""Which call a path is of."""

from __future__ import annotations

import pytest

from clustersh.coordinator.router import Router
from clustersh.coordinator.routes import Route


async def _handler() -> None:
    """Never called here."""


@pytest.fixture
def router() -> Router:
    router = Router()
    for method, path in (
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/<machine>/<id>"),
        ("POST", "/v1/jobs/<machine>/<id>/cancel"),
        ("PUT", "/v1/blobs/<sha256>"),
        ("GET", "/v1/blobs/<sha256>"),
        ("POST", "/v1/blobs/missing"),
    ):
        router.add(Route(method, path, _handler, None))
    return router


@pytest.mark.parametrize(
    ("method", "path", "route", "parts"),
    [
        ("GET", "/v1/jobs", "/v1/jobs", {}),
        ("GET", "/v1/jobs/ws1/ab", "/v1/jobs/<machine>/<id>", {"machine": "ws1", "id": "ab"}),
        ("POST", "/v1/jobs/ws1/ab/cancel", "/v1/jobs/<machine>/<id>/cancel", {"machine": "ws1", "id": "ab"}),
        ("HEAD", "/v1/blobs/é", "/v1/blobs/<sha256>", {"sha256": "é"}),
        ("POST", "/v1/blobs/missing", "/v1/blobs/missing", {}),
    ],
)
def test_a_path_leads_to_its_route(router: Router, method: str, path: str, route: str, parts: dict[str, str]) -> None:
    place = router.find(path)
    assert place is not None
    found = place.route(method)
    assert found is not None
    assert (found.path, place.parts) == (route, parts)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/jobs/",
        "//v1/jobs",
        "/v1//jobs",
        "v1/jobs",
        "/v1/jobs/ws1",
        "/v1/jobs//ab",
        "/v1/jobs/ws1/",
        "/V1/jobs",
        "/v1/jobs/<machine>/<id>/x",
        "/v1/jobs/ws1/ab/cancel/",
        "*",
    ],
)
def test_any_other_path_leads_nowhere(router: Router, path: str) -> None:
    assert router.find(path) is None


def test_variables_may_look_like_patterns(router: Router) -> None:
    place = router.find("/v1/jobs/<machine>/<id>")
    assert place is not None
    assert place.parts == {"machine": "<machine>", "id": "<id>"}


def test_a_place_says_which_methods_it_takes(router: Router) -> None:
    place = router.find("/v1/blobs/ab")
    assert place is not None
    assert place.methods == ["GET", "HEAD", "PUT"]
    assert place.route("POST") is None
