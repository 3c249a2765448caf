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

from .programs import MIB, Peak, Rest, started_cluster, timed
from .tables import Unable, run, table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="a large output on its way to the agent's disk")
    parser.add_argument("--size", type=int, default=5120, help="MiB that the command prints (default: 5120)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each, half a minute each (default: 3)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    command = f"head -c {options.size * MIB} /dev/zero"
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 3 * options.size * MIB:
            raise Unable(f"too little space in {folder}: --size takes less")
        with started_cluster(folder) as cluster, contextlib.closing(cluster.rest()) as rest:
            rest.run("true")
            peak = Peak(cluster.pids)
            ours, theirs = [], []
            for _ in range(options.turns):
                ours.append(timed(lambda: printed(rest, command, options.size)))
                forget_outputs(cluster.agent.path / "agent" / "jobs")
                theirs.append(timed(lambda: to_file(command, folder / "file")))
                (folder / "file").unlink()
            grown = peak.grown(cluster.agent_pid)
    return report(options.size, ours, theirs, grown)


def printed(rest: Rest, command: str, mib: int) -> None:
    """Run *command* until its end, and see that all of its output was kept."""
    (job,) = rest.wait(rest.run(command, wait_s=1)["uuid"])["jobs"]
    assert job["output_bytes"] == mib * MIB, f"{job['output_bytes']} bytes were kept instead of {mib} MiB"


def forget_outputs(jobs: Path) -> None:
    """Make room on the disk: the outputs that were measured are of no more use."""
    for output in jobs.glob("*/*/output"):
        output.unlink()


def to_file(command: str, path: Path) -> None:
    """Have bash write what *command* prints to a new file, and that to the disk, as the agent does at its end."""
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
