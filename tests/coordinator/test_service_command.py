"""Where `clusterd service install` says that others find the coordinator."""

from __future__ import annotations

import platform

import pytest

from clustersh.config import Listen
from clustersh.coordinator.service_command import join_address


@pytest.mark.parametrize(
    ("listen", "port", "netloc"),
    [
        ("*:5672", None, "{host}:5672"),
        ("0.0.0.0:0", 7000, "{host}:7000"),
        ("[::1]:5672", None, "[::1]:5672"),
        ("10.0.0.5:80", 80, "10.0.0.5:80"),
    ],
)
def test_everything_is_found_by_name_and_one_address_by_itself(listen: str, port: int | None, netloc: str) -> None:
    assert join_address(Listen(listen), port).netloc == netloc.format(host=platform.node().lower())
