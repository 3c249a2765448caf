"""How many connections may be open."""

from __future__ import annotations

import gc

from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from clustersh.coordinator.crowd import MAX_ALL, Crowd, allow_many_files
from clustersh.coordinator.door import DoorFactory


class Connection:
    connected = 1


def test_one_source_has_its_share_and_the_others_theirs() -> None:
    complaints: list[tuple[str, str]] = []
    crowd = Crowd(lambda *words: complaints.append(words), all_=4, each=2)
    greedy = [Connection() for _ in range(3)]
    assert [crowd.enter(each, "::ffff:192.0.2.1") for each in greedy] == [True, True, False]
    other, third, fourth = Connection(), Connection(), Connection()
    assert crowd.enter(other, "192.0.2.2") and crowd.enter(third, "2001:db8::1")
    assert not crowd.enter(fourth, "192.0.2.3")
    greedy[0].connected = 0
    assert crowd.enter(fourth, "192.0.2.3"), "what was closed counts no more"
    assert len(complaints) == 2 and "too many connections" in complaints[0][1]


def test_what_is_gone_from_memory_counts_no_more() -> None:
    crowd = Crowd(all_=1, each=1)
    assert crowd.enter(Connection(), "192.0.2.1")
    gc.collect()
    assert crowd.enter(Connection(), "192.0.2.1")


def test_a_source_of_many_addresses_is_one() -> None:
    crowd = Crowd(all_=9, each=1)
    first, second = Connection(), Connection()
    assert crowd.enter(first, "2001:db8::1")
    assert not crowd.enter(second, "2001:db8::2")


def test_the_door_turns_away_what_there_is_no_room_for() -> None:
    door = DoorFactory(Clock(), Factory(), CertificateOptions(), Crowd(all_=1, each=1))
    transports = [StringTransport(), StringTransport()]
    for transport in transports:
        transport.connected = 1
        protocol = door.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(transport)
    assert [transport.disconnected for transport in transports] == [False, True]


def test_connections_leave_files_for_the_service() -> None:
    assert 1 <= allow_many_files() <= MAX_ALL
