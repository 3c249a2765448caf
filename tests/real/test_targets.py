"""Targets, groups, labels and facts with real machines: what users type, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .many import Fleet, make_fleet

pytestmark = pytest.mark.real
NAMES = ("web01", "web02", "db1")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    yield made
    made.stop()
