"""The quick way of `clustersh run`, and that the full way takes up the same run where it ends."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

from .many import Fleet
from .programs import BIN, Cluster, end, eventually


def imported(cluster: Cluster | Fleet, *words: str) -> set[str]:
    """Return the top-level packages that a `clustersh` process imports where it does the work itself."""
    environ = {**cluster.client.environment(), "PYTHONPROFILEIMPORTTIME": "1", "CLUSTERSH_STANDBY": "off"}
    done = subprocess.run(
        [BIN / "clustersh", *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return set(re.findall(r"\| +(\w+)$", done.stderr.decode(), re.MULTILINE))


def test_a_short_command_needs_no_reactor(cluster: Cluster) -> None:
    assert not {"twisted", "treq", "OpenSSL"} & imported(cluster, "run", "ws1", "echo quick")
    assert "twisted" in imported(cluster, "run", "--follow", "ws1", "true")


def test_a_longer_command_is_taken_up_and_not_run_again(cluster: Cluster, tmp_path: Path) -> None:
    count = tmp_path / "count"
    answer = cluster.sh("run", "ws1", f"echo x >> {count}; sleep 3; echo done; exit 4")
    assert (answer.status, answer.out, answer.err) == (4, "done\n", "")
    assert count.read_text() == "x\n"


def test_streams_that_share_a_destination_keep_their_order(cluster: Cluster) -> None:
    command = "for n in 1 2 3; do echo out$n; echo err$n >&2; sleep 0.05; done"
    done = subprocess.run(
        [BIN / "clustersh", "run", "ws1", command],
        env=cluster.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    assert done.stdout.decode().split() == ["out1", "err1", "out2", "err2", "out3", "err3"]


def test_a_reader_that_went_away_ends_it_quietly(cluster: Cluster) -> None:
    shell = f"{BIN / 'clustersh'} run ws1 'seq 20000' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["/bin/bash", "-c", shell],
        env=cluster.client.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split()[0] == b"1"
    assert b"Traceback" not in done.stderr and b"ERROR" not in done.stderr


def test_an_interrupt_ends_it_while_its_output_is_not_read(cluster: Cluster) -> None:
    process = cluster.client.open("clustersh", "run", "ws1", "seq 20000")
    assert process.stdout is not None
    assert process.stdout.read(2) == b"1\n"
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(30) in (130, 141)
    end(process)


def test_an_interrupt_at_the_very_start_cancels_or_starts_nothing(cluster: Cluster) -> None:
    before = {job["uuid"] for job in cluster.sh("history", "--json").json["jobs"]}
    process = cluster.client.open("clustersh", "run", "ws1", "sleep 301")
    eventually(lambda: [job for job in cluster.client.jobs() if job["uuid"] not in before])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    [fresh] = [job for job in cluster.sh("history", "--json").json["jobs"] if job["uuid"] not in before]
    assert cluster.until_job(fresh["uuid"], "cancelled")


def test_a_key_that_others_may_read_is_refused_with_the_chmod(own_cluster: Cluster) -> None:
    key = own_cluster.client.path / "client" / "key.pem"
    key.chmod(0o644)
    answer = own_cluster.sh("run", "ws1", "true")
    assert answer.status == 125
    assert f"chmod 600 {key}" in answer.err


def test_another_coordinators_certificate_is_not_accepted(own_cluster: Cluster, tmp_path: Path) -> None:
    from .programs import log_in, make_home

    other = make_home(tmp_path, "other")
    other.start("clusterd", "--listen", "127.0.0.1:0")
    stranger = make_home(tmp_path, "stranger")
    log_in(other, stranger, other.address())
    state = stranger.path / "client" / "login.json"
    state.write_text(f'{{"coordinator":"{own_cluster.address}"}}')
    answer = stranger.sh("run", "ws1", "true")
    assert answer.status == 125, answer
    assert re.match(r"ERROR: .* is not the coordinator .*\nhint: .*pair with it again", answer.err)
    for home in (other, stranger):
        home.stop()


def test_what_was_asked_for_is_not_called_never_started(own_cluster: Cluster) -> None:
    process = own_cluster.client.open("clustersh", "run", "ws1", "sleep 300")
    eventually(lambda: any(job["status"] == "running" for job in own_cluster.client.jobs()))
    deadline = time.monotonic() + 2.2  # the quick way has its answer by now, and the full way is being imported
    eventually(lambda: time.monotonic() > deadline)
    end(own_cluster.coordinator_process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    assert process.returncode is None, process.communicate()
    end(process)
