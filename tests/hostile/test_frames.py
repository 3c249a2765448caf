"""An agent that was let in and lies: its frames are refused, and nobody else's jobs are touched."""

from __future__ import annotations

import os
import time

import msgspec
import pytest

from clustersh.wire import link
from clustersh.wire.ids import UuidMaker
from clustersh.wire.jobs import Outcome, OutputSummary, State
from clustersh.wire.output import Stream, encode_runs
from tests.hostile.attackers import (
    BINARY,
    CLOSE,
    TEXT,
    Mallory,
    RawLink,
    log_lines,
    start_job,
    still_serves,
    watched,
)
from tests.real.programs import Cluster, eventually

new_uuid = UuidMaker(lambda: time.time_ns() // 1_000_000)

BAD = {
    "random bytes": os.urandom(200),
    "no message": b"",
    "another kind": msgspec.msgpack.encode({"is": "welcome", "epoch": 1}),
    "no such kind": msgspec.msgpack.encode({"is": "root"}),
    "a clock that is no number": msgspec.msgpack.encode({"is": "pulse", "clock": float("nan")}),
    "a negative offset": msgspec.msgpack.encode({"is": "stdin-taken", "request": 1, "offset": -1}),
    "nested deeply": b"\x91" * 100_000 + b"\xc0",
    "a map of a claimed four billion": b"\xdf\xff\xff\xff\xff",
    "a second hello": link.encode(link.Hello("1", "i", "s", 1.0)),
    "an exit code beyond what a system has": link.encode(
        link.Ended(new_uuid(), Outcome(State.FAILED, exit_code=2**64 - 1))
    ),
    "an outcome that is none": msgspec.msgpack.encode(
        {"is": "ended", "uuid": new_uuid(), "outcome": {"state": "running", "exit_code": 0}}
    ),
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_a_frame_that_cant_be_ends_the_link_with_a_reason(cluster: Cluster, mallory: Mallory, payload: bytes) -> None:
    with mallory.linked() as linked:
        linked.frame(payload)
        code, reason = linked.until_closed()
        assert code == 4001
        assert reason.startswith("that message can't be: "), reason


def test_what_a_lying_agent_sends_is_logged_once_not_once_each(cluster: Cluster, mallory: Mallory) -> None:
    for _ in range(20):
        with mallory.linked() as linked:
            for _ in range(50):
                linked.frame(b"\xc1")
            linked.until_closed()
    assert len(log_lines(cluster, "refused mallory")) <= 2
    still_serves(cluster)


def test_a_text_frame_is_refused(mallory: Mallory) -> None:
    with mallory.linked() as linked:
        linked.frame(b"hello", TEXT)
        assert linked.until_closed()[0] == 4001


def test_a_link_begins_with_a_hello(mallory: Mallory) -> None:
    linked = mallory.link()
    linked.send(link.Pulse(1.0))
    assert linked.until_closed()[0] == 4001
    linked.close()


@pytest.mark.parametrize("lie", ["one frame", "fragments", "a claimed length"])
def test_an_oversize_message_is_refused_before_it_is_kept(cluster: Cluster, mallory: Mallory, lie: str) -> None:
    with watched(cluster, f"oversize message ({lie})") as seen, mallory.linked() as linked:
        try:
            if lie == "fragments":
                for number in range(64):
                    linked.frame(b"x" * (1 << 20), BINARY if number == 0 else 0, final=False)
            elif lie == "one frame":
                linked.frame(b"x" * (32 << 20))
            else:
                linked.frame(b"x", claimed=1 << 62)
        except OSError:
            pass
        assert linked.until_closed()[0] in (0, 1009, 1002)
    assert seen.grown_mib < 32
    assert seen.slowest_s < 5
    still_serves(cluster)


def test_an_unmasked_or_nonsensical_websocket_is_closed(mallory: Mallory) -> None:
    for raw in (b"\x82\x05hello", b"\xff\xff" + os.urandom(64), b"\x88\x80\0\0\0\0" * 3):
        with mallory.linked() as linked:
            linked.raw(raw)
            assert linked.receive()[0] == CLOSE


def test_an_agent_cant_end_another_machines_job(cluster: Cluster, mallory: Mallory) -> None:
    uuid = cluster.sh("run", "ws1", "--detach", "sleep 30").out.strip()
    cluster.until_job(uuid, "running")
    with mallory.linked() as linked:
        for _ in range(100):
            linked.send(link.Started(uuid))
            linked.send(link.Ended(uuid, Outcome.exited(0)))
        linked.send(link.Pulse(time.clock_gettime(time.CLOCK_BOOTTIME)))
        mine = start_job(cluster, linked)
        linked.send(link.Ended(mine.uuid, Outcome.exited(0)))
        cluster.until_job(mine.uuid, "completed")
    assert cluster.job(uuid)["status"] == "running"
    assert len(log_lines(cluster, "another machine's job")) == 1
    assert cluster.sh("cancel", "ws1", uuid).status == 0
    assert cluster.until_job(uuid, "cancelled")["reason"]


def test_an_outcome_that_is_replayed_or_changed_later_counts_once(cluster: Cluster, mallory: Mallory) -> None:
    with mallory.linked() as linked:
        job = start_job(cluster, linked)
        for code in (3, 0, 4, 3):
            linked.send(link.Ended(job.uuid, Outcome.exited(code)))
        while not isinstance(linked.next(), link.Acknowledge):
            pass
        linked.send(link.Started(job.uuid))
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        assert isinstance(linked.next(), link.Acknowledge)
    assert cluster.job(job.uuid)["exit_code"] == 3
    files = (cluster.coordinator.path / "coordinator" / "ledger").glob("*.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines() if job.uuid in line]
    assert sum('"exit_code"' in line for line in lines) == 1, lines


def test_an_end_before_its_start_is_an_end(cluster: Cluster, mallory: Mallory) -> None:
    """Out of order, but true: what ended has begun."""
    with mallory.linked() as linked:
        job = start_job(cluster, linked)
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        linked.send(link.Started(job.uuid))
        cluster.until_job(job.uuid, "completed")
    assert cluster.job(job.uuid)["status"] == "completed"


LIES = {
    "more head than output": link.Ended("", Outcome.exited(0), OutputSummary(1), head=b"xx", head_runs=b"\x02"),
    "runs of another length": link.Ended("", Outcome.exited(0), OutputSummary(2), head=b"xx", head_runs=b"\x7f"),
    "a head over the limit": link.Ended(
        "",
        Outcome.exited(0),
        OutputSummary(1 << 20),
        head=b"x" * (1 << 20),
        head_runs=encode_runs([(Stream.STDOUT, 1 << 20)]),
    ),
    "a state that is the coordinator's": link.Ended("", Outcome(State.LOST, reason="gone")),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_outcome_that_cant_be_is_not_recorded(cluster: Cluster, mallory: Mallory, lie: link.Ended) -> None:
    with mallory.linked() as linked:
        job = start_job(cluster, linked)
        linked.send(msgspec.structs.replace(lie, uuid=job.uuid))
        linked.send(link.Pulse(time.clock_gettime(time.CLOCK_BOOTTIME)))
        assert cluster.job(job.uuid)["status"] in ("requested", "running")
        linked.send(link.Ended(job.uuid, Outcome.exited(7)))
        assert cluster.until_job(job.uuid, "failed")["exit_code"] == 7


def test_exit_codes_at_the_edge_leave_the_history_whole(cluster: Cluster, mallory: Mallory) -> None:
    """Numbers that the index can't hold would stop it for everyone, for good."""
    with mallory.linked() as linked:
        for code in (2**32 - 1, -(2**31)):
            job = start_job(cluster, linked)
            linked.send(link.Ended(job.uuid, Outcome(State.FAILED, exit_code=code)))
            assert cluster.until_job(job.uuid, "failed")["exit_code"] == code
        job = start_job(cluster, linked)
        huge = OutputSummary((1 << 63) - 1, (1 << 63) - 1)
        linked.send(link.Ended(job.uuid, Outcome.exited(0), huge))
        assert cluster.until_job(job.uuid, "completed")
    still_serves(cluster)


def test_outcomes_of_runs_that_never_were_are_limited(cluster: Cluster, mallory: Mallory) -> None:
    files = cluster.coordinator.path / "coordinator" / "ledger"

    def size() -> int:
        return sum(file.stat().st_size for file in files.iterdir())

    before = size()
    with watched(cluster, "4,000 outcomes of unknown runs") as seen, mallory.linked() as linked:
        reason = "x" * 4096
        for _ in range(4_000):
            linked.send(link.Ended(new_uuid(), Outcome(State.NOT_STARTED, reason=reason)))
        job = start_job(cluster, linked)
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        cluster.until_job(job.uuid, "completed")
    assert size() - before < 16 << 20
    assert seen.grown_mib < 64
    assert seen.slowest_s < 5
    assert len(log_lines(cluster, "too many unknown jobs")) <= 2


def test_answers_to_questions_that_nobody_asked_are_dropped(cluster: Cluster, mallory: Mallory) -> None:
    with watched(cluster, "300 unasked answers of 64 KiB") as seen, mallory.linked() as linked:
        for number in range(300):
            linked.send(link.Chunk(number, 0, b"x" * (64 << 10), 1 << 40, False))
        linked.send(link.StdinTaken(1, 5))
        linked.send(link.Failed(2, "internal", "?"))
        job = start_job(cluster, linked)
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        cluster.until_job(job.uuid, "completed")
    assert seen.grown_mib < 32
    assert seen.slowest_s < 5


def _answer_read(linked: RawLink, answer: link.Chunk) -> None:
    while True:
        message = linked.next()
        if isinstance(message, link.Read):
            linked.send(msgspec.structs.replace(answer, request=message.request))
            return


CHUNKS = {
    "more than was asked for": link.Chunk(
        0, 0, b"x" * (1 << 20), 1 << 20, True, encode_runs([(Stream.STDOUT, 1 << 20)])
    ),
    "another place": link.Chunk(0, 77, b"x", 78, True, b"\x01"),
    "runs that don't fit": link.Chunk(0, 0, b"xyz", 3, True, b"\x7f"),
    "millions of empty runs": link.Chunk(0, 0, b"x", 1, True, b"\0" * (3 << 20) + b"\x01"),
    "torn runs": link.Chunk(0, 0, b"x", 1, True, b"\xff"),
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS.keys())
def test_output_that_cant_be_is_an_error_that_says_so(cluster: Cluster, mallory: Mallory, chunk: link.Chunk) -> None:
    with mallory.linked() as linked:
        job = start_job(cluster, linked)
        reader = cluster.client.open("clustersh", "cat", "mallory", job.uuid)
        for _ in ("the quick way", "the full way"):
            _answer_read(linked, chunk)
        out, err = reader.communicate(timeout=30)
        assert reader.returncode != 0
        assert out == b""
        assert b"can't be" in err, err
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        cluster.until_job(job.uuid, "completed")


def test_an_agent_that_says_it_has_more_and_sends_nothing_ends_the_read(cluster: Cluster, mallory: Mallory) -> None:
    with mallory.linked() as linked:
        job = start_job(cluster, linked)
        reader = cluster.client.open("clustersh", "cat", "mallory", job.uuid)
        for _ in range(3):
            _answer_read(linked, link.Chunk(0, 0, b"", 1 << 50, False))
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        cluster.until_job(job.uuid, "completed")
    _, err = reader.communicate(timeout=30)
    assert reader.returncode != 0
    assert b"Traceback" not in err


def test_a_link_that_never_says_hello_is_closed_and_never_online(cluster: Cluster, mallory: Mallory) -> None:
    linked = mallory.link()
    assert linked.status == 101
    assert cluster.status_of("mallory") == "offline"
    assert linked.until_closed()[1] == "no hello came"
    linked.close()


def test_an_agent_that_closes_its_ears_costs_no_memory(cluster: Cluster, mallory: Mallory) -> None:
    """Nobody answers the readers; they get an answer in the end, or leave."""
    with watched(cluster, "reads that are never answered") as seen, mallory.linked() as linked:
        job = start_job(cluster, linked)
        readers = [cluster.client.open("clustersh", "cat", "mallory", job.uuid) for _ in range(4)]
        for _ in readers:
            eventually(lambda: isinstance(linked.next(), link.Read))
        linked.send(link.Ended(job.uuid, Outcome.exited(0)))
        cluster.until_job(job.uuid, "completed")
    for reader in readers:
        _, err = reader.communicate(timeout=30)
        assert reader.returncode != 0 and b"offline" in err, err
    assert seen.grown_mib < 16
