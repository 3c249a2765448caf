"""An agent of the coordinator's own user is warned of, once."""

from __future__ import annotations

import pytest

from clustersh.coordinator.neighbours import Neighbour, Neighbours
from clustersh.wire.link import Facts


def test_an_agent_of_the_same_user_on_the_same_host_is_warned_of_once() -> None:
    neighbours = Neighbours(Neighbour("ws1", "joshua"))
    assert neighbours.came("id-1", Facts(hostname="ws1", user="joshua"))
    assert not neighbours.came("id-1", Facts(hostname="ws1", user="joshua"))
    assert neighbours.came("id-2", Facts(hostname="ws1", user="joshua"))


@pytest.mark.parametrize("facts", [Facts(hostname="ws2", user="joshua"), Facts(hostname="ws1", user="ann"), Facts()])
def test_another_user_or_host_is_not(facts: Facts) -> None:
    assert not Neighbours(Neighbour("ws1", "joshua")).came("id-1", facts)
