"""`clustersh cat` of a large output beside `ssh here cat file`, and what that costs everybody else.

While the output is read, a second client runs `true`; memory is the services' high-water mark beyond their idle one.
Then the same with agent or client 25 and 100 ms further away each way (a smaller output, to keep it short).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .latency import started_ssh_config
from .programs import MIB, Cluster, Peak, Rest, delayed, started_cluster, timed
from .tables import aim, run, table

WAYS_MS = (25, 100)
CHUNK = 1 << 20
BETWEEN_S = 0.1
"""Seconds between two runs of the second client: without a pause they would be a load of their own."""


class Reading(NamedTuple):
    """Rates in MB/s of each turn; MiB that coordinator and agent grew by; ms of `true` idle and meanwhile."""

    rates: list[float]
    grown: tuple[float, float]
    idle_ms: list[float]
    busy_ms: list[float]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="a large output through clustersh and through ssh")
    parser.add_argument("--size", type=int, default=1024, help="MiB of output (default: 1024)")
    parser.add_argument("--far-size", type=int, default=128, help="MiB from further away (default: 128)")
    parser.add_argument("--turns", type=int, default=15, help="readings of each (default: 15)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        file = folder / "file"
        make_file(file, options.size)
        with started_cluster(folder / "near") as cluster, started_ssh_config(folder) as ssh:
            uuid = printed(cluster, file)
            over_ssh: list[float] = []
            near = reading(
                cluster, uuid, options.size, options.turns, lambda: over_ssh.append(ssh_rate(ssh, file, options.size))
            )
        make_file(file, options.far_size)
        far = far_rates(folder, file, options.far_size, options.turns)
    return report(near, over_ssh, far)


def make_file(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def printed(cluster: Cluster, file: Path) -> str:
    """Have *file* printed by a job; return its uuid when it has ended."""
    with contextlib.closing(cluster.rest()) as rest:
        uuid = str(rest.run(f"cat {file}", wait_s=1)["uuid"])
        rest.wait(uuid)
    return uuid


def reading(cluster: Cluster, uuid: str, mib: int, turns: int, between: Callable[[], object]) -> Reading:
    """Read the job's whole output *turns* times, *between* after each."""
    rates: list[float] = []
    with contextlib.closing(cluster.rest()) as rest:
        idle_ms = [timed(lambda: rest.run("true")) * 1000 for _ in range(30)]
    peak = Peak(cluster.pids)
    busy_ms: list[float] = []
    for _ in range(turns):
        with running_true(cluster) as latencies:
            rates.append(cat_rate(cluster, uuid, mib))
        busy_ms += latencies
        between()
    grown = tuple(peak.grown(pid) for pid in cluster.pids)
    return Reading(rates, (grown[0], grown[1]), idle_ms, busy_ms)


@contextlib.contextmanager
def running_true(cluster: Cluster) -> Iterator[list[float]]:
    """Run `true` again and again meanwhile; yield the list of the milliseconds that each took."""
    latencies: list[float] = []
    enough = threading.Event()

    def work(rest: Rest) -> None:
        while not enough.wait(BETWEEN_S):
            latencies.append(timed(lambda: rest.run("true")) * 1000)

    with contextlib.closing(cluster.rest()) as rest:
        thread = threading.Thread(target=work, args=(rest,))
        thread.start()
        try:
            yield latencies
        finally:
            enough.set()
            thread.join()


def cat_rate(cluster: Cluster, uuid: str, mib: int) -> float:
    """Return the MB/s of `clustersh cat`, a whole process."""
    program = Path(sys.executable).parent / "clustersh"
    return rate([str(program), "cat", "ws1", uuid], mib, cluster.client.environment())


def ssh_rate(ssh: Sequence[str], file: Path, mib: int) -> float:
    """Return the MB/s of `ssh here cat file`, a whole process."""
    return rate([*ssh, "here", f"cat {file}"], mib, dict(os.environ))


def rate(command: Sequence[str], mib: int, environ: dict[str, str]) -> float:
    """Run *command*, which prints *mib* MiB, and return its MB/s."""
    began, count = time.perf_counter(), 0
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(CHUNK):
            count += len(data)
    assert process.returncode == 0, f"{command} exited {process.returncode}"
    assert count == mib * MIB, f"{count} bytes came instead of {mib} MiB"
    return count / 1e6 / (time.perf_counter() - began)


def far_rates(folder: Path, file: Path, mib: int, turns: int) -> dict[str, list[float]]:
    """Return the MB/s of each turn, by who was how far away."""
    rates: dict[str, list[float]] = {}
    for way_ms in WAYS_MS:
        with started_cluster(folder / f"agent-{way_ms}", way_ms=way_ms) as cluster:
            uuid = printed(cluster, file)
            with delayed(cluster.address, way_ms) as address:
                for _ in range(turns):
                    agent_far = cat_rate(cluster, uuid, mib)
                    both_far = rest_rate(Rest(address, cluster.client.path / "client"), uuid, mib)
                    rates.setdefault(f"clustersh cat, agent {way_ms} ms away", []).append(agent_far)
                    rates.setdefault(f"GET .../output, agent and client {way_ms} ms away", []).append(both_far)
    return rates


def rest_rate(rest: Rest, uuid: str, mib: int) -> float:
    """Return the MB/s of the output's raw bytes over REST."""
    began, count = time.perf_counter(), 0
    with contextlib.closing(rest):
        answer = rest.open(f"/v1/jobs/ws1/{uuid}/output?stream=stdout")
        while data := answer.read(CHUNK):
            count += len(data)
    assert count == mib * MIB, f"{count} bytes came instead of {mib} MiB"
    return count / 1e6 / (time.perf_counter() - began)


def report(near: Reading, over_ssh: Sequence[float], far: dict[str, list[float]]) -> str:
    """Return the table and how it stands to its aims."""
    rows = [
        ("clustersh cat", *_middle(near.rates)),
        ("ssh here cat file", *_middle(over_ssh)),
        *((name, *_middle(rates)) for name, rates in far.items()),
    ]
    ours, theirs = statistics.median(near.rates), statistics.median(over_ssh)
    idle, busy = statistics.median(near.idle_ms), statistics.median(near.busy_ms)
    beside = [
        ("`true`, idle", f"{idle:.1f}", str(len(near.idle_ms))),
        ("`true`, while another reads", f"{busy:.1f}", str(len(near.busy_ms))),
    ]
    memory = [("coordinator", f"{near.grown[0]:.1f}"), ("agent", f"{near.grown[1]:.1f}")]
    slowest = min(statistics.median(rates) for rates in far.values())
    return (
        table(["a large output", "MB/s", "turns"], rows)
        + "\n"
        + table(["a second client", "median ms", "runs"], beside)
        + "\n"
        + table(["memory, high-water mark", "grew by MiB"], memory)
        + aim(f"at least half of ssh's rate (here {ours / theirs:.2f})", ours >= theirs / 2)
        + aim("memory grows by at most 32 MiB", max(near.grown) <= 32)
        + aim(f"a second client waits at most 2 times as long (here {busy / idle:.2f})", busy <= 2 * idle)
        + aim(f"at least 20 MB/s from further away (here {slowest:.0f})", slowest >= 20)
    )


def _middle(rates: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(rates):.0f}", str(len(rates))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
