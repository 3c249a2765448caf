"""The quick way of `clustersh cat`, and that the full way goes on at the very byte where it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from .programs import BIN, Cluster, end, eventually
from .test_main_job import detach
from .test_quick import imported

MIXED = """
import os
for n in range(20000):
    os.write(1 + n % 2, "%d \N{EURO SIGN}\\n".encode("utf-8")[: 3 + n % 7] % n)
os.write(1, b"\\xe2\\x82")
"""
"""Both streams in turns, and characters that are cut in the middle."""


def mixed() -> tuple[bytes, bytes]:
    """Return what MIXED prints to stdout and to stderr."""
    pieces = ["%d \N{EURO SIGN}\n".encode()[: 3 + n % 7] % n for n in range(20000)] + [b"\xe2\x82"]
    return b"".join(pieces[::2]), b"".join(pieces[1::2])


@pytest.fixture(scope="module")
def uuid(cluster: Cluster) -> str:
    found = detach(cluster, "ws1", "--", "python3", "-c", MIXED)
    cluster.until_job(found, "completed")
    return found


@pytest.fixture(scope="module")
def large(cluster: Cluster) -> str:
    found = detach(cluster, "ws1", "seq 4000000")
    cluster.until_job(found, "completed")
    return found


def numbers(last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, last + 1))


def test_an_output_is_printed_without_a_reactor(cluster: Cluster, large: str) -> None:
    for words in (("ws1", large), (large[-8:], "--tail", "3"), ("ws1", large, "--stderr")):
        assert not {"twisted", "treq", "OpenSSL"} & imported(cluster, "cat", *words)
    assert "twisted" in imported(cluster, "cat", "--json", "--tail", "3", "ws1", large)


def test_every_byte_goes_where_it_belongs(cluster: Cluster, uuid: str) -> None:
    out, err = mixed()
    plain = cluster.sh("cat", "ws1", uuid)
    assert (plain.status, plain.stdout, plain.stderr) == (0, out, err)
    only = cluster.sh("cat", uuid, "--stdout")
    assert (only.status, only.stdout, only.stderr) == (0, out, b"")
    other = cluster.sh("cat", "ws1", uuid, "--stderr")
    assert (other.status, other.stdout, other.stderr) == (0, err, b"")


def test_streams_that_share_a_destination_keep_their_order(cluster: Cluster) -> None:
    shared = detach(cluster, "ws1", "for n in 1 2 3; do echo out$n; echo err$n >&2; sleep 0.05; done")
    cluster.until_job(shared, "completed")
    done = subprocess.run(
        [BIN / "clustersh", "cat", "ws1", shared],
        env=cluster.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    assert done.stdout.decode().split() == ["out1", "err1", "out2", "err2", "out3", "err3"]


def test_a_part_is_that_part(cluster: Cluster, uuid: str, large: str) -> None:
    out, _ = mixed()
    assert cluster.sh("cat", "ws1", uuid, "--stdout", "--offset", "11", "--length", "70000").stdout == out[11:70011]
    assert cluster.sh("cat", "ws1", uuid, "--stdout", "--offset", "1GB").stdout == b""
    assert cluster.sh("cat", "ws1", large, "--tail", "2").stdout == b"3999999\n4000000\n"
    assert cluster.sh("cat", "ws1", large, "--tail", "0").stdout == b""
    assert cluster.sh("cat", "ws1", large).stdout == numbers(4000000)


def test_a_reader_that_went_away_ends_it_quietly(cluster: Cluster, large: str) -> None:
    shell = f"{BIN / 'clustersh'} cat ws1 {large} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["/bin/bash", "-c", shell],
        env=cluster.client.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"1\n141\n", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_while_its_output_is_not_read(cluster: Cluster, large: str, number: int) -> None:
    process = cluster.client.open("clustersh", "cat", "ws1", large)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"1\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + number, b"")


def test_a_full_device_is_told(cluster: Cluster, large: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [BIN / "clustersh", "cat", "ws1", large],
            env=cluster.client.environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (123, b"ERROR: can't write the output: No space left on device\n")


def test_what_is_wrong_is_told_as_ever(own_cluster: Cluster) -> None:
    uuid = detach(own_cluster, "ws1", "echo stored")
    own_cluster.until_job(uuid, "completed")
    unknown = own_cluster.sh("cat", "ws1", "00000000")
    assert unknown.status == 125 and unknown.err.startswith("ERROR: ") and "hint: " in unknown.err
    end(own_cluster.agent_process)
    own_cluster.until_status("ws1", "offline")
    offline = own_cluster.sh("cat", "ws1", uuid)
    assert offline.stdout == b""
    assert re.match(r"ERROR: ws1 is offline .*; the output is kept there\nhint: ", offline.err), offline.err


def test_a_coordinator_that_is_gone_in_the_middle_leaves_the_way_to_the_rest(own_cluster: Cluster) -> None:
    uuid = detach(own_cluster, "ws1", "seq 4000000")
    own_cluster.until_job(uuid, "completed")
    (own_cluster.client.path / "config.toml").write_text('[client]\nretry_for = "1s"\n')
    process = own_cluster.client.open("clustersh", "cat", "ws1", uuid)
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 2)
    end(own_cluster.coordinator_process, signal.SIGKILL)
    rest, err = process.communicate(timeout=60)
    came = first + rest
    assert process.returncode == 123, err
    assert err.startswith(b"ERROR: the output is not complete: "), err
    hint = re.search(rb"hint: the rest: clustersh cat ws1 (\S+) --offset (\d+)\n", err)
    assert hint is not None and hint[1].decode() == uuid and int(hint[2]) == len(came)
    own_cluster.restart_coordinator()
    own_cluster.until_status("ws1", "online")
    again = own_cluster.sh("cat", "ws1", uuid, "--offset", hint[2].decode())
    assert came + again.stdout == numbers(4000000)
    assert eventually(lambda: process.poll()) == 123
