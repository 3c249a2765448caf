"""One cluster for a module's tests, left by each as it found it; those that break it make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .services import FaultyCluster, faulty_cluster, workplace


@pytest.fixture(scope="module")
def cluster() -> Iterator[FaultyCluster]:
    with workplace() as folder, faulty_cluster(folder) as made:
        yield made
        made.check_alive()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the services' user."""
    with workplace() as folder:
        yield folder
