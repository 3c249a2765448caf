"""Thousands of idle agents: what each costs the coordinator, and how they all come back after its restart.

The agents are simulated (see many_agents.py): their pulses come every 10 s, their vitals every 30 s. The restart is a
kill and a start, as after a crash; meanwhile `clustersh run` goes to the one real machine again and again, and the
longest time of those that were asked for once the coordinator listened again counts.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.programs import end

from .crowds import Crowd, connected, enroll
from .programs import Cluster, cpu_s, eventually, memory, online, started_cluster, succeed, timed
from .tables import Unable, aim, run, table

SETTLE_S = 3.0
PAUSE_S = 0.5
"""Seconds between two runs: without it the clients take the processor that the simulated agents need."""
EACH_KIB = 60.0
RUN_WITHIN_S = 1.0
BACK_WITHIN_S = 30.0


@dataclass
class Figures:
    """What was measured: KiB an agent, share of a core while idle, and seconds."""

    each_kib: float = 0.0
    idle_share: float = 0.0
    back_s: float = 0.0
    back_cpu_s: float = 0.0
    runs_idle: list[float] = field(default_factory=list)
    runs_meanwhile: list[float] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="thousands of idle agents, and their coming back")
    parser.add_argument("--agents", type=int, default=5000, help="simulated agents (default: 5000)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds over which idleness is measured")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        with started_cluster(folder) as cluster:
            enroll(cluster, folder / "agents", options.agents)
            before = memory(cluster.coordinator_pid)["unique"]
            with connected(cluster.address, folder / "agents", options.agents) as crowd:
                time.sleep(SETTLE_S)
                figures.each_kib = (memory(cluster.coordinator_pid)["unique"] - before) / options.agents * 1024
                used, began = cpu_s([cluster.coordinator_pid]), time.monotonic()
                time.sleep(options.idle)
                figures.idle_share = (cpu_s([cluster.coordinator_pid]) - used) / (time.monotonic() - began)
                figures.runs_idle = [
                    timed(lambda: succeed(cluster.client, "clustersh", "run", "ws1", "true")) for _ in range(5)
                ]
                come_back(cluster, crowd, figures)
    return report(figures, options.agents)


def come_back(cluster: Cluster, crowd: Crowd, figures: Figures) -> None:
    """Kill the coordinator and start it again; wait until all agents are back."""
    end(cluster.coordinator.services[0], signal.SIGKILL)
    cluster.coordinator.services.clear()
    server = cluster.coordinator.start("clusterd", "--listen", cluster.address)
    eventually(lambda: cluster.coordinator.running("coordinator").get("pid") == server.pid, 60, "the coordinator")
    listening, used = time.monotonic(), cpu_s([server.pid])
    cluster.coordinator_pid = server.pid
    with running_meanwhile(cluster, figures.runs_meanwhile):
        figures.back_s = crowd.until_welcome() - listening
        figures.back_cpu_s = cpu_s([server.pid]) - used


@contextlib.contextmanager
def running_meanwhile(cluster: Cluster, times: list[float]) -> Iterator[None]:
    """Run `true` on the real machine, again and again, once it is back."""
    with contextlib.closing(cluster.rest()) as rest:
        eventually(lambda: online(rest), 60, "the real agent online again")
    stop = threading.Event()
    failed: list[Unable] = []

    def work() -> None:
        while not stop.is_set():
            try:
                times.append(timed(lambda: succeed(cluster.client, "clustersh", "run", "ws1", "true")))
            except Unable as error:
                failed.append(error)
                return
            stop.wait(PAUSE_S)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def report(figures: Figures, count: int) -> str:
    """Return the table and how it stands to its aims."""
    longest = max(figures.runs_meanwhile, default=0.0)
    rows = [
        ("memory for each (KiB)", f"{figures.each_kib:.1f}"),
        ("the coordinator's CPU while they are idle (% of a core)", f"{figures.idle_share * 100:.1f}"),
        ("all back after a restart (s)", f"{figures.back_s:.1f}"),
        ("the coordinator's CPU until then (s)", f"{figures.back_cpu_s:.1f}"),
        ("that, for each (ms)", f"{figures.back_cpu_s / count * 1000:.2f}"),
        ("`clustersh run` before it, median (s)", f"{statistics.median(figures.runs_idle):.2f}"),
        (f"`clustersh run` meanwhile, median of {len(figures.runs_meanwhile)} (s)", _median(figures.runs_meanwhile)),
        ("`clustersh run` meanwhile, longest (s)", f"{longest:.2f}"),
    ]
    return (
        table([f"{count} idle agents", "figure"], rows)
        + aim(f"at most {EACH_KIB:g} KiB an agent (here {figures.each_kib:.1f})", figures.each_kib <= EACH_KIB)
        + aim(f"all back within {BACK_WITHIN_S:g} s (here {figures.back_s:.1f})", figures.back_s <= BACK_WITHIN_S)
        + aim(
            f"a run meanwhile takes under {RUN_WITHIN_S:g} s (here at most {longest:.2f})",
            bool(figures.runs_meanwhile) and longest < RUN_WITHIN_S,
        )
    )


def _median(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f}" if times else "-"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
