"""What becomes of a ledger that was torn, changed or cut while the coordinator was down."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..real.programs import Result, end
from .services import FaultyCluster


def lines_of(cluster: FaultyCluster) -> list[bytes]:
    return b"".join(path.read_bytes() for path in cluster.ledger_files()).splitlines(keepends=True)


def replace_ledger(cluster: FaultyCluster, lines: list[bytes]) -> None:
    """Put *lines* in the place of all that the ledger's files hold."""
    first, *others = cluster.ledger_files()
    first.write_bytes(b"".join(lines))
    for path in others:
        path.unlink()


def chained(lines: list[bytes]) -> list[bytes]:
    """Return *lines* with the chain computed anew, as a forger would."""
    made, before = [], "0" * 64
    for number, line in enumerate(lines, 1):
        record = {**json.loads(line), "seq": number, "prev": before}
        made.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        before = hashlib.sha256(made[-1][:-1]).hexdigest()
    return made


def verify(cluster: FaultyCluster, *words: str) -> Result:
    return cluster.coordinator.run("clusterd", "audit", "verify", *words)


def stop(cluster: FaultyCluster) -> None:
    end(cluster.coordinator_process)


@pytest.fixture
def healed(cluster: FaultyCluster) -> Iterator[list[bytes]]:
    """Put the ledger back after the test, and see that it is whole."""
    cluster.until_status("ws1", "online")
    assert cluster.sh("run", "ws1", "echo before").status == 0
    assert cluster.sh("run", "ws1", "echo last").status == 0
    kept = lines_of(cluster)
    yield kept
    end(cluster.coordinator_process)
    replace_ledger(cluster, kept)
    cluster.restart_coordinator()
    cluster.until_status("ws1", "online")
    assert verify(cluster, "--witness").status == 0


@pytest.mark.parametrize("tail", [b'{"seq":99999,"time":"2026-1', b"\0" * 4096, b'{"seq":1}\0\0\0\n\0\0'])
def test_a_torn_tail_is_cut_kept_and_told(cluster: FaultyCluster, tail: bytes) -> None:
    assert cluster.sh("run", "ws1", "true").status == 0
    stop(cluster)
    before = len(lines_of(cluster))
    last = cluster.ledger_files()[-1]
    last.write_bytes(last.read_bytes() + tail)
    cluster.restart_coordinator()
    told = cluster.records()[before]
    assert (told["is"], told["cut"]) == ("repaired", len(tail))
    assert (last.parent / told["kept"]).read_bytes() == tail


def test_a_missing_or_damaged_index_is_made_anew(cluster: FaultyCluster) -> None:
    for damage in (Path.unlink, lambda path: path.write_bytes(b"no database" * 1000)):
        # Who was seen last is the index's alone to know: without it nobody is expected back.
        cluster.until_status("ws1", "online")
        assert cluster.sh("run", "ws1", "echo kept; exit 3").status == 3
        uuid = cluster.newest_run()
        stop(cluster)
        for path in (cluster.coordinator.path / "coordinator").glob("index.sqlite*"):
            damage(path)
        cluster.restart_coordinator()
        job = cluster.job(uuid)
        assert (job["status"], job["exit_code"]) == ("failed", 3)


def test_a_changed_record_is_named(cluster: FaultyCluster, healed: list[bytes]) -> None:
    stop(cluster)
    changed = [line.replace(b"echo before", b"echo beyond") for line in healed]
    where = next(number for number, line in enumerate(changed) if line != healed[number]) + 1
    replace_ledger(cluster, changed)
    cluster.restart_coordinator()
    found = verify(cluster)
    assert found.status == 1
    assert f"record {where} is not the one that record {where + 1} was chained to" in found.err, found


def test_a_missing_record_is_named(cluster: FaultyCluster, healed: list[bytes]) -> None:
    stop(cluster)
    where = next(number for number, line in enumerate(healed) if b"echo before" in line) + 1
    replace_ledger(cluster, healed[: where - 1] + healed[where:])
    cluster.restart_coordinator()
    found = verify(cluster)
    assert found.status == 1
    assert f"record {where} is missing" in found.err, found


def test_a_chain_computed_anew_is_found_by_the_witnesses(cluster: FaultyCluster, healed: list[bytes]) -> None:
    stop(cluster)
    changed = [line.replace(b"echo before", b"echo beyond") for line in healed]
    where = next(number for number, line in enumerate(changed) if line != healed[number]) + 1
    replace_ledger(cluster, chained(changed))
    cluster.restart_coordinator()
    cluster.until_status("ws1", "online")
    assert verify(cluster).status == 0
    found = verify(cluster, "--witness")
    assert found.status == 1
    # A machine is told of the ledger's head now and then, so what it knows may only bound where the change is.
    told = re.search(r"ws1 was told of another record (\d+): (?:record|one of) (\d+)", found.err)
    assert told is not None, found.err
    assert int(told[2]) <= where <= int(told[1])


def test_a_cut_tail_is_found_by_the_witnesses(cluster: FaultyCluster, healed: list[bytes]) -> None:
    stop(cluster)
    where = next(number for number, line in enumerate(healed) if b"echo last" in line) + 1
    replace_ledger(cluster, healed[: where - 1])
    cluster.restart_coordinator()
    cluster.until_status("ws1", "online")
    assert verify(cluster).status == 0
    found = verify(cluster, "--witness")
    assert found.status == 1
    assert f"broken at record {where}" in found.err and "its end was cut off" in found.err, found
