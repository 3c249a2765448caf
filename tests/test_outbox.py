"""What a link sends goes out in order; what nobody waits for goes with the next, or in a moment."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from clustersh.outbox import MAX_WAITING, WAIT_S, Message, Outbox
from clustersh.wire.jobs import Outcome
from clustersh.wire.link import Acknowledge, Cancel, Ended, Started, Witness

STARTED, ENDED = Started("uuid"), Ended("uuid", Outcome.exited(0))
ACKNOWLEDGE = Acknowledge("uuid", Witness(1, "00"))


class Sent(list[Message]):
    """What was sent, through an outbox with a clock of the test's own."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.outbox = Outbox(self.clock, self.append)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.mark.parametrize("patient", [STARTED, ACKNOWLEDGE])
def test_what_may_wait_goes_with_the_next_message_and_before_it(sent: Sent, patient: Message) -> None:
    sent.outbox.put(patient)
    assert sent == []
    sent.outbox.put(ENDED)
    assert sent == [patient, ENDED]
    sent.outbox.put(Cancel("uuid"))
    assert sent == [patient, ENDED, Cancel("uuid")]


def test_what_may_wait_goes_alone_in_a_moment(sent: Sent) -> None:
    sent.outbox.put(STARTED)
    sent.clock.advance(WAIT_S / 2)
    sent.outbox.put(ACKNOWLEDGE)
    assert sent == []
    sent.clock.advance(WAIT_S / 2)
    assert sent == [STARTED, ACKNOWLEDGE]
    sent.outbox.put(STARTED)
    sent.clock.advance(WAIT_S)
    assert sent == [STARTED, ACKNOWLEDGE, STARTED]


def test_few_wait_at_once(sent: Sent) -> None:
    for _ in range(MAX_WAITING):
        sent.outbox.put(ACKNOWLEDGE)
    assert sent == [ACKNOWLEDGE] * MAX_WAITING


def test_a_link_that_ends_sends_what_waits_and_one_that_is_gone_drops_it(sent: Sent) -> None:
    sent.outbox.put(STARTED)
    sent.outbox.flush()
    assert sent == [STARTED]
    sent.outbox.put(ACKNOWLEDGE)
    sent.outbox.close()
    sent.clock.advance(WAIT_S)
    assert sent == [STARTED]
    assert sent.clock.getDelayedCalls() == []
