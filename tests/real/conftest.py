"""One cluster of real programs for a module's tests; those that break it make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .clusters import make_cluster
from .programs import Cluster
from .standbys import Standby


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = make_cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose client leaves a standby behind, whatever others do."""
    made = make_cluster(tmp_path_factory.mktemp("standing"), CLUSTERSH_STANDBY="on")
    yield made
    made.stop()


@pytest.fixture
def standby(standing: Cluster) -> Standby:
    """Its standby, as it takes calls."""
    return Standby(standing)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = make_cluster(tmp_path)
    yield made
    made.stop()
