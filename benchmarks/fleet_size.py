"""What one command on a whole fleet costs: `clustersh run all true`, whole process, with hundreds of machines and more.

The agents are simulated (see many_agents.py), so it is the client, the coordinator and the links that are measured. The
machines of the smaller fleet are a part of the larger one: both are asked in turn, by their names' ranges.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .crowds import connected, enroll
from .filling import machine_names
from .programs import Cluster, cpu_s, keep_standby, started_cluster, succeed, timed
from .tables import aim, run, table

FEW_WITHIN_S = 1.0
MOST_GROWTH = 1.25
"""How much longer a machine may take in the large fleet than in the small one."""


class Figures(NamedTuple):
    """Of one run: the seconds it took, and how many milliseconds of CPU a machine it cost the coordinator."""

    seconds: float
    cpu_ms: float


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="one command on a whole fleet of simulated agents")
    parser.add_argument("--few", type=int, default=500, help="machines of the small fleet (default: 500)")
    parser.add_argument("--many", type=int, default=2000, help="machines of the large fleet (default: 2000)")
    parser.add_argument("--turns", type=int, default=9, help="measured turns of each (default: 9)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    sizes = (options.few, options.many)
    measured: dict[int, list[Figures]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        with started_cluster(folder) as cluster:
            enroll(cluster, folder / "agents", options.many)
            keep_standby(cluster.client)
            with connected(cluster.address, folder / "agents", options.many):
                for turn in range(options.turns + 1):
                    for size in sizes:
                        figures = take(cluster, size)
                        if turn:
                            measured[size].append(figures)
    return report(measured)


def take(cluster: Cluster, size: int) -> Figures:
    """Run `true` on the first *size* machines."""
    target = machine_names(size)
    cpu = cpu_s([cluster.coordinator_pid])
    seconds = timed(lambda: succeed(cluster.client, "clustersh", "run", target, "true"))
    return Figures(seconds, (cpu_s([cluster.coordinator_pid]) - cpu) / size * 1000)


def report(measured: Mapping[int, Sequence[Figures]]) -> str:
    """Return the table and how it stands to its aims; medians of the turns."""
    rows, each = [], []
    for size, figures in measured.items():
        seconds = statistics.median(figure.seconds for figure in figures)
        cpu_ms = statistics.median(figure.cpu_ms for figure in figures)
        each.append(seconds / size)
        rows.append(
            (f"{size} machines", f"{seconds:.2f}", f"{seconds / size * 1000:.2f}", f"{cpu_ms:.2f}", str(len(figures)))
        )
    few = min(measured)
    first = statistics.median(figure.seconds for figure in measured[few])
    growth = each[-1] / each[0]
    return (
        table(["clustersh run TARGET true", "seconds", "ms/machine", "coordinator's CPU ms/machine", "turns"], rows)
        + aim(f"{few} machines in under {FEW_WITHIN_S:g} s (here {first:.2f})", first < FEW_WITHIN_S)
        + aim(
            f"a machine takes at most {MOST_GROWTH:g} times as long in the larger fleet (here {growth:.2f})",
            growth <= MOST_GROWTH,
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
