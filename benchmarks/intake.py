"""The rate at which the agent takes a large output to its disk, beside `bash -c '...' > file`, and its memory."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .programs import MIB, Peak, started_cluster, timed
from .tables import Unable, run, table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="a large output on its way to the agent's disk")
    parser.add_argument("--size", type=int, default=2048, help="MiB that the command prints (default: 2048)")
    parser.add_argument("--turns", type=int, default=1, help="turns of each (default: 1)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    command = f"head -c {options.size * MIB} /dev/zero"
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < (options.turns + 2) * options.size * MIB:
            raise Unable(f"too little space in {folder}: --size takes less")
        with started_cluster(folder) as cluster, contextlib.closing(cluster.rest()) as rest:
            rest.run("true")
            peak = Peak(cluster.pids)
            ours, theirs = [], []
            for _ in range(options.turns):
                ours.append(timed(lambda: rest.wait(rest.run(command, wait_s=1)["uuid"])))
                theirs.append(timed(lambda: to_file(command, folder / "file")))
            grown = peak.grown(cluster.agent_pid)
    return report(options.size, ours, theirs, grown)


def to_file(command: str, path: Path) -> None:
    """Have bash write what *command* prints to a new file, and that to the disk, as the agent does at its end."""
    path.unlink(missing_ok=True)
    subprocess.run(["bash", "-c", f"{command} > {path} && sync {path}"], check=True)


def report(mib: int, ours: Sequence[float], theirs: Sequence[float], grown: float) -> str:
    """Return the table."""
    rates = {"clustersh": ours, "bash -c '...' > file, sync": theirs}
    rows = [(name, f"{mib * MIB / 1e6 / statistics.median(each):.0f}", str(len(each))) for name, each in rates.items()]
    return (
        table([f"{mib} MiB to the disk", "MB/s", "turns"], rows)
        + f"the agent's high-water mark grew by {grown:.1f} MiB\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
