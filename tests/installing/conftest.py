"""One coordinator, and hosts around it, for all the tests that install."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hosts import Hub, Network, fetch_wheels, make_hub, network, why_not


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with network(tmp_path_factory.mktemp("net")) as made:
        yield made


@pytest.fixture(scope="session")
def hub(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return make_hub(net, fetch_wheels(tmp_path_factory.mktemp("wheels")))
