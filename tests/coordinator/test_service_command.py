"""Where `clusterd service install` says that others find the coordinator."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import pytest

from clustersh.config import Listen
from clustersh.coordinator.invite_command import own_address
from clustersh.coordinator.service_command import join_address
from clustersh.home import ServiceLock


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


@pytest.mark.parametrize(
    ("running", "netloc"),
    [
        ("127.0.0.1:7000", "{host}:7000"),
        ("0.0.0.0:7000", "{host}:7000"),
        ("[::]:7000", "{host}:7000"),
        ("10.0.0.5:80", "10.0.0.5:80"),
        ("hub:80", "hub:80"),
        (None, "localhost:5672"),
    ],
)
def test_an_invitation_names_no_address_that_is_nowhere(tmp_path: Path, running: str | None, netloc: str) -> None:
    lock = ServiceLock(tmp_path / "coordinator")
    lock.take()
    try:
        if running is not None:
            lock.announce(running, "1")
        assert own_address(tmp_path).netloc == netloc.format(host=socket.gethostname().lower())
    finally:
        lock.release()
