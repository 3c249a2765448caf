from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clustersh.trust.authority import Authority


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path, now: datetime) -> Authority:
    """A CA made a year ago, so that certificates of last month can be issued too."""
    return Authority.create(tmp_path / "coordinator", now - timedelta(days=365))
