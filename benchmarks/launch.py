"""Where the milliseconds of `clustersh run here true` go, with a warm standby: each line is what one thing more takes.

Whole processes, interleaved; a line is the median of its call less that of the line above it. So the parts add up to
the whole by themselves, and a part is as good as the two medians that it comes from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .latency import Call, measure, started_calls
from .tables import Unable

IMPORTS = "import clustersh.frontend.main"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="where the milliseconds of a short command go")
    parser.add_argument("--runs", type=int, default=30, help="measured runs of each (default: 30)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="clustersh-") as name, started_calls(Path(name)) as calls:
            sys.stdout.write(table(measure(steps(calls["clustersh run"]), 3, options.runs)))
    except Unable as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return 1
    return 0


def steps(whole: Call) -> dict[str, Call]:
    """Return what is measured, each with one thing more than the one before."""
    program, run, machine, command = whole.words
    return {
        "Python's own start": Call((sys.executable, "-c", "pass"), whole.environ),
        "the launcher's imports": Call((sys.executable, "-c", IMPORTS), whole.environ),
        "socket, arguments, and back": Call((program, "--version"), whole.environ),
        "one REST request": Call((program, "whoami"), whole.environ),
        "records, link, spawn": Call((program, run, machine, command), whole.environ),
    }


def table(measured: Mapping[str, Sequence[float]]) -> str:
    """Return the figures as text."""
    lines = [f"{'what':<32} {'ms':>8} {'so far':>8}"]
    before = 0.0
    for name, times in measured.items():
        so_far = statistics.median(times)
        lines.append(f"{name:<32} {so_far - before:>8.1f} {so_far:>8.1f}")
        before = so_far
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
