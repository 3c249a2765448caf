"""A cluster of real programs for a module's attacks, with a second machine (mallory) whose key the test holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attackers import Mallory, make_mallory
from tests.real.programs import Cluster, make_cluster

FUZZ = "test_fuzz"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and FUZZ not in item.path.name:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = make_cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def mallory(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Mallory:
    return make_mallory(cluster, tmp_path_factory.mktemp("mallory"))
