"""A body on its way to a collector that takes its time: little waits in memory, and what waits goes on as one piece."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from clustersh.http_bodies import HIGH_WATER, BodyReader


class Connection:
    """A transport that knows whether it was paused."""

    def __init__(self) -> None:
        self.paused = False
        self.stopped = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True


class Slow:
    """A collector whose work ends when the test says so."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._work: list[Deferred[None]] = []

    def __call__(self, piece: bytes) -> Deferred[None]:
        self.pieces.append(piece)
        self._work.append(Deferred())
        return self._work[-1]

    def finish(self) -> None:
        self._work.pop().callback(None)


def begun(collector: Slow) -> tuple[BodyReader, Connection, list[bool]]:
    progress: list[bool] = []
    reader, connection = BodyReader(collector, progress.append), Connection()
    reader.makeConnection(connection)  # type: ignore[arg-type]
    return reader, connection, progress


def test_what_comes_while_the_collector_works_is_its_next_piece() -> None:
    slow = Slow()
    reader, connection, progress = begun(slow)
    for data in (b"one", b"two", b"three"):
        reader.dataReceived(data)
    assert (slow.pieces, progress) == ([b"one"], [False])
    slow.finish()
    assert slow.pieces == [b"one", b"twothree"]
    assert not connection.paused
    slow.finish()
    assert progress == [False, True]


def test_the_network_waits_while_much_is_queued() -> None:
    slow = Slow()
    reader, connection, _ = begun(slow)
    quarter = bytes(HIGH_WATER // 4)
    for _ in range(4):  # the first of them is with the collector
        reader.dataReceived(quarter)
        assert not connection.paused
    reader.dataReceived(quarter)
    assert connection.paused
    slow.finish()
    assert not connection.paused
    assert slow.pieces[1] == bytes(HIGH_WATER)
    reader.dataReceived(bytes(HIGH_WATER))
    assert connection.paused


def test_the_end_is_told_after_the_last_piece() -> None:
    slow = Slow()
    reader, connection, _ = begun(slow)
    reader.dataReceived(b"one")
    reader.dataReceived(bytes(HIGH_WATER))
    assert connection.paused
    reader.connectionLost(Failure(ResponseDone()))
    assert not reader.done.called
    slow.finish()
    assert connection.paused  # there is nothing to be resumed any more
    assert not reader.done.called
    slow.finish()
    assert reader.done.called
    assert b"".join(slow.pieces) == b"one" + bytes(HIGH_WATER)
