"""A cluster of real programs for a module's attacks, with a second machine (mallory) whose key the test holds.

Where the tests are root's, the programs are another user's (tests/faults/users.py): root would be refused nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.services import faulty_cluster, workplace
from tests.hostile.attackers import Mallory, make_mallory
from tests.real.programs import Cluster


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the programs' user, in place of pytest's, which is closed to other users."""
    with workplace() as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with workplace() as folder, faulty_cluster(folder) as made:
        yield made


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One that a test may leave spoilt: its rate limits used up, its services stopped."""
    with faulty_cluster(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def mallory(cluster: Cluster) -> Iterator[Mallory]:
    with workplace() as folder:
        yield make_mallory(cluster, folder)
