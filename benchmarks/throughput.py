"""Jobs a second of `true` through REST, and what a job costs beyond the bare process.

The jobs go one at a time and 50 in flight through one kept-alive connection, and 50 in flight through as many
connections; beside them Twisted's bare `spawnProcess` of `bash -c true`. CPU is that of coordinator and agent together,
without the commands', but with the counting of syncs (0.02 ms a job). The runs are interleaved, and then repeated with
every sync to a disk taking 5 ms longer; how many syncs there are a job is counted in the coordinator and in the agent.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .programs import ROOT, Cluster, Rest, cpu_s, started_cluster
from .tables import Unable, aim, run, table

IN_FLIGHT = 50
SLOW_SYNC_MS = 5
AIM_MS = 3.0
AIM_SYNCS = 2.0


class Figures(NamedTuple):
    """Of one turn: jobs a second, CPU ms a job, and syncs a job in coordinator and agent."""

    rate: float
    cpu_ms: float
    syncs: tuple[float, float] = (0.0, 0.0)


Way = Callable[[int], None]
Measured = dict[str, list[Figures]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="jobs a second of `true`, and what one costs")
    parser.add_argument("--jobs", type=int, default=50, help="jobs a turn (default: 50)")
    parser.add_argument("--turns", type=int, default=15, help="measured turns of each (default: 15)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        probe = Probe(folder)
        cluster = running.enter_context(started_cluster(folder, probe.environ))
        rests = [running.enter_context(contextlib.closing(cluster.rest())) for _ in range(IN_FLIGHT)]
        ways: dict[str, Way] = {
            "clustersh, one at a time": lambda jobs: one_at_a_time(rests[0], jobs),
            "clustersh, 50 in flight": lambda jobs: in_flight(rests[0], jobs),
            "clustersh, 50 connections": lambda jobs: over_many(rests, jobs),
        }
        fast = turns(cluster, probe, ways, options.jobs, options.turns)
        probe.delay(SLOW_SYNC_MS)
        slow = turns(cluster, probe, ways, options.jobs, max(1, options.turns // 3), bare=False)
    return report(fast, slow)


def turns(
    cluster: Cluster, probe: Probe, ways: Mapping[str, Way], jobs: int, count: int, bare: bool = True
) -> Measured:
    """Take each way *count* times in turn, after once for warmth."""
    measured: Measured = collections.defaultdict(list)
    for turn in range(count + 1):
        for name, way in ways.items():
            figures = take(cluster, probe, way, jobs)
            if turn:
                measured[name].append(figures)
        for flying in (1, IN_FLIGHT) if bare and turn else ():
            measured[f"bare spawnProcess, {flying} in flight"].append(bare_spawn(jobs, flying))
    return measured


def take(cluster: Cluster, probe: Probe, way: Way, jobs: int) -> Figures:
    """Run *jobs* jobs that *way*."""
    cpu, syncs, began = cpu_s(cluster.pids), probe.counts(cluster.pids), time.perf_counter()
    way(jobs)
    seconds = time.perf_counter() - began
    used = cpu_s(cluster.pids) - cpu
    counted = [(after - before) / jobs for before, after in zip(syncs, probe.counts(cluster.pids), strict=True)]
    return Figures(jobs / seconds, used / jobs * 1000, (counted[0], counted[1]))


def one_at_a_time(rest: Rest, jobs: int) -> None:
    for _ in range(jobs):
        rest.run("true")


def in_flight(rest: Rest, jobs: int) -> None:
    """Keep up to 50 jobs going: ask without waiting, then ask for the oldest's end."""
    flying: collections.deque[str] = collections.deque()
    for _ in range(jobs):
        if len(flying) == IN_FLIGHT:
            rest.wait(flying.popleft())
        flying.append(rest.run("true", wait_s=0)["uuid"])
    for uuid in flying:
        rest.wait(uuid)


def over_many(rests: Sequence[Rest], jobs: int) -> None:
    left = iter(range(jobs))
    lock = threading.Lock()

    def work(rest: Rest) -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            rest.run("true")

    threads = [threading.Thread(target=work, args=(rest,)) for rest in rests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bare_spawn(jobs: int, flying: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.bare_spawn", str(jobs), str(flying)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rate, cpu_ms = map(float, ran.stdout.split())
    return Figures(rate, cpu_ms)


class Probe:
    """Counts the services' syncs, and makes them slower; see sync_probe.c."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            raise Unable("no gcc here; on Debian: apt-get install gcc libc6-dev")
        self._folder = folder / "probe"
        self._folder.mkdir()
        library = folder / "sync_probe.so"
        source = Path(__file__).with_name("sync_probe.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.environ = {"LD_PRELOAD": str(library), "SYNC_PROBE": str(self._folder)}

    def delay(self, ms: float) -> None:
        """Make each sync take *ms* longer from now on."""
        (self._folder / "delay_us").write_text(str(int(ms * 1000)))

    def counts(self, pids: Sequence[int]) -> list[int]:
        """Return how many syncs each process has made."""
        paths = [self._folder / str(pid) for pid in pids]
        return [path.stat().st_size if path.exists() else 0 for path in paths]


def report(fast: Mapping[str, Sequence[Figures]], slow: Mapping[str, Sequence[Figures]]) -> str:
    """Return the table and how it stands to its aims; medians of the turns."""
    bare = {flying: median(fast[f"bare spawnProcess, {flying} in flight"]) for flying in (1, IN_FLIGHT)}
    rows = [*_rows(fast, bare), *((f"{name}, syncs + {SLOW_SYNC_MS} ms", *rest) for name, *rest in _rows(slow, bare))]
    heading = ["jobs of `true`", "jobs/s", "CPU ms/job", "beyond bare", "syncs coordinator", "syncs agent", "turns"]
    single = median(fast["clustersh, one at a time"])
    many = median(fast["clustersh, 50 in flight"])
    worst = max(single.cpu_ms - bare[1].cpu_ms, many.cpu_ms - bare[IN_FLIGHT].cpu_ms)
    return (
        table(heading, rows)
        + aim(f"under {AIM_MS:g} ms of CPU a job beyond the bare process (here {worst:.2f})", worst < AIM_MS)
        + aim(
            f"2 syncs a job on the coordinator, 2 on the agent (here {single.syncs[0]:.1f}, {single.syncs[1]:.1f})",
            max(single.syncs) < AIM_SYNCS + 0.2,
        )
    )


def _rows(measured: Mapping[str, Sequence[Figures]], bare: Mapping[int, Figures]) -> Iterator[tuple[str, ...]]:
    for name, figures in measured.items():
        middle = median(figures)
        beyond, syncs = "", ["", ""]
        if name.startswith("clustersh"):
            beside = bare[1 if "one at a time" in name else IN_FLIGHT]
            beyond, syncs = f"{middle.cpu_ms - beside.cpu_ms:.2f}", [f"{count:.2f}" for count in middle.syncs]
        yield name, f"{middle.rate:.0f}", f"{middle.cpu_ms:.2f}", beyond, *syncs, str(len(figures))


def median(figures: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    rate, cpu_ms = (statistics.median(each[part] for each in figures) for part in (0, 1))  # type: ignore[type-var]
    first, second = (statistics.median(each.syncs[part] for each in figures) for part in (0, 1))
    return Figures(rate, cpu_ms, (first, second))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
