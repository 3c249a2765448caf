"""The guard's time for each command of its tests' tables, which it parses anew each time; and for long ones.

Nothing of the tables is run. *By the worker* is the way that a coordinator goes: to a process and back, by a reactor.
`clustersh run` pays that median once for each request, however many machines it is for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from clustersh.coordinator.guard import Guard
from clustersh.coordinator.guard.values import LONGEST
from clustersh.coordinator.judging import Judging
from clustersh.wire.jobs import MAX_SCRIPT, BlobRef, Command
from tests.coordinator.guard.tables import BASH, POWERSHELL, Row

from .programs import memory
from .tables import aim, run, table

AIM_US = 500.0
_KINDS = {"bash": (BASH, "linux/amd64"), "PowerShell": (POWERSHELL, "windows/amd64")}
_LINE = b'for f in *.txt; do grep -q "$1" "$f" && rm -f "./$f" || echo "kept $f"; done\n'
_SCRIPT = Command(script=BlobRef("0" * 64, 1, "script.sh"))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="the guard's time for a command")
    parser.add_argument("--turns", type=int, default=20, help="turns of each command; the median counts (default: 20)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    times = {name: timed_rows(rows, platform, options.turns) for name, (rows, platform) in _KINDS.items()}
    longest = {f"a script of {size >> 10} KiB": timed_script(size) for size in (4 << 10, LONGEST, MAX_SCRIPT)}
    idle, used = by_worker(times, options.turns)
    return report(times, longest, idle, used)


def timed_rows(rows: Sequence[Row], platform: str, turns: int) -> dict[str, float]:
    """Return the microseconds that each command takes, the median of *turns*, in turns over all."""
    guard, times = Guard(), {row.command: list[float]() for row in rows}
    for _ in range(turns + 1):
        for text, found in times.items():
            command = Command(shell=text)
            began = time.perf_counter()
            guard.judge(command, None, platform)
            found.append((time.perf_counter() - began) * 1e6)
    return {text: statistics.median(found[1:]) for text, found in times.items()}


def by_worker(times: dict[str, dict[str, float]], turns: int) -> tuple[float, float]:
    """Add to *times* what a worker takes, there and back; return its unique MiB before and after all that."""
    memories: list[float] = []

    async def measured(reactor: Any) -> None:
        judging = Judging(reactor)
        judging.start()
        for name, (rows, platform) in _KINDS.items():
            found = {row.command: list[float]() for row in rows}
            await judging.judge(Command(argv=("true",)), None, platform)
            memories.append(_worker_memory())
            for turn in range(turns + 1):
                for text, each in found.items():
                    command, folder = Command(shell=text), f"/srv/{turn}"  # in another folder it isn't remembered
                    began = time.perf_counter()
                    await judging.judge(command, None, platform, folder)
                    each.append((time.perf_counter() - began) * 1e6)
            times[f"{name}, by the worker"] = {text: statistics.median(each[1:]) for text, each in found.items()}
        memories.append(_worker_memory())
        await judging.stop()

    try:
        react(lambda reactor: Deferred.fromCoroutine(measured(reactor)))
    except SystemExit as end:
        if end.code:
            raise
    return memories[0], memories[-1]


def _worker_memory() -> float:
    (worker,) = psutil.Process().children()
    return memory(worker.pid)["unique"]


def timed_script(size: int) -> float:
    """Return the microseconds that a script of *size* bytes takes."""
    content = (_LINE * (size // len(_LINE) + 1))[:size]
    began = time.perf_counter()
    Guard().judge(_SCRIPT, content, "linux/amd64")
    return (time.perf_counter() - began) * 1e6


def report(times: dict[str, dict[str, float]], longest: dict[str, float], idle: float, used: float) -> str:
    """Return the table and how it stands to its aim; *idle* and *used* are the worker's unique MiB."""
    rows: list[tuple[object, ...]] = []
    for name, each in times.items():
        worst = max(each, key=lambda text: each[text])
        rows.append(
            (f"{len(each)} commands of {name}", f"{statistics.median(each.values()):.0f}", f"{each[worst]:.0f}")
        )
    rows += [(name, f"{took:.0f}", f"{took:.0f}") for name, took in longest.items()]
    median = max(statistics.median(each.values()) for each in times.values())
    return (
        table(["µs", "median", "worst"], rows)
        + f"the worker's memory: {idle:.1f} MiB unique when it is ready, {used:.1f} after all of these\n"
        + aim(f"a command takes at most {AIM_US:g} µs in the median (here {median:.0f})", median <= AIM_US)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
