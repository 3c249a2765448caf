"""Questions about 100 jobs and about 200,000; and the coordinator's start with a million ledger records."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from clustersh.coordinator.records import MachineRef

from . import filling
from .programs import Cluster, restarted, started_cluster, timed
from .tables import aim, run, table

AIM_TIMES = 1.2
AIM_START_S = 3.0
Times = dict[str, list[float]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="questions about few and about many jobs")
    parser.add_argument("--few", type=int, default=100, help="jobs at first (default: 100)")
    parser.add_argument("--many", type=int, default=200_000, help="jobs then (default: 200000)")
    parser.add_argument("--records", type=int, default=1_000_000, help="ledger records at the start (default: 1000000)")
    parser.add_argument("--turns", type=int, default=15, help="measured turns of each (default: 15)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name, started_cluster(Path(name)) as cluster:
        few = asked(cluster, grow(cluster, options.few), options.turns)
        many = asked(cluster, grow(cluster, options.many - options.few), options.turns)
        more = max(0, options.records - 2 * options.many) // 2
        grow(cluster, more, stored=False)
        start_s = restarted(cluster, lambda: None)
    return report(options, few, many, start_s)


def grow(cluster: Cluster, count: int, stored: bool = True) -> str:
    """Add *count* jobs to the ledger (and, *stored*, to the agent's store); return one from their middle."""
    with contextlib.closing(cluster.rest()) as rest:
        machine = rest.get("/v1/machines")["machines"][0]
        who = rest.get("/v1/whoami")
    uuids = filling.uuids(count)
    if stored:
        filling.store(cluster.agent.path / "agent", uuids, who["name"])
    records = filling.runs(uuids, MachineRef(machine["name"], machine["id"]), who["name"], who["id"])
    restarted(cluster, lambda: filling.append(cluster.coordinator.path / "coordinator", records))
    return uuids[count // 2] if uuids else ""


def asked(cluster: Cluster, uuid: str, turns: int) -> Times:
    """Return the milliseconds that each question takes, as a whole command and over a kept connection."""
    program, environ = str(Path(sys.executable).parent / "clustersh"), cluster.client.environment()

    def command(*words: str) -> None:
        subprocess.run([program, *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    with contextlib.closing(cluster.rest()) as rest:
        questions: dict[str, Callable[[], object]] = {
            "clustersh history": lambda: command("history"),
            "clustersh cat UUID": lambda: command("cat", uuid),
            "GET /v1/jobs": lambda: rest.read("/v1/jobs"),
            "GET .../output": lambda: rest.read(f"/v1/jobs/ws1/{uuid}/output"),
        }
        times: Times = {name: [] for name in questions}
        for turn in range(turns + 2):
            for name, question in questions.items():
                took = timed(question) * 1000
                if turn >= 2:
                    times[name].append(took)
    return times


def report(options: argparse.Namespace, few: Times, many: Times, start_s: float) -> str:
    """Return the table and how it stands to its aims."""
    ratios = {name: statistics.median(many[name]) / statistics.median(few[name]) for name in few}
    rows = [
        (
            name,
            f"{statistics.median(few[name]):.1f}",
            f"{statistics.median(many[name]):.1f}",
            f"{ratios[name]:.2f}",
            str(len(few[name])),
        )
        for name in few
    ]
    worst = max(ratios.values())
    return (
        table(["median ms", f"{options.few} jobs", f"{options.many} jobs", "times", "turns"], rows)
        + f"the coordinator's start with {options.records} ledger records: {start_s:.2f} s\n"
        + aim(f"at most {AIM_TIMES} times as long (here {worst:.2f})", worst <= AIM_TIMES)
        + aim(f"the start under {AIM_START_S:g} s", start_s < AIM_START_S)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
