"""Questions about 100 jobs and about 200,000; and the coordinator's start with a million ledger records."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from clustersh.coordinator.records import MachineRef

from . import filling
from .programs import Cluster, Rest, restarted, started_cluster, timed
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
    with (
        tempfile.TemporaryDirectory(prefix="clustersh-") as name,
        started_cluster(Path(name) / "few") as small,
        started_cluster(Path(name) / "many") as large,
    ):
        few, many = asked(
            {small: grow(small, options.few), large: grow(large, options.many)},
            options.turns,
        )
        more = max(0, options.records - 2 * options.many) // 2
        grow(large, more, stored=False)
        start_s = restarted(large, lambda: None)
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
    os.sync()  # what was written here is no part of what is measured
    return uuids[count // 2] if uuids else ""


def asked(uuids: dict[Cluster, str], turns: int) -> list[Times]:
    """Return the milliseconds that each question takes in each cluster, asked in turns."""
    with contextlib.ExitStack() as open_connections:
        questions = [
            _questions(cluster, open_connections.enter_context(contextlib.closing(cluster.rest())), uuid)
            for cluster, uuid in uuids.items()
        ]
        times: list[Times] = [{name: [] for name in each} for each in questions]
        for turn in range(turns + 2):
            for name in questions[0]:
                for each, found in zip(questions, times, strict=True):
                    took = timed(each[name]) * 1000
                    if turn >= 2:
                        found[name].append(took)
    return times


def _questions(cluster: Cluster, rest: Rest, uuid: str) -> dict[str, Callable[[], object]]:
    """Return what is asked, as a whole command and over a kept connection."""
    program, environ = str(Path(sys.executable).parent / "clustersh"), cluster.client.environment()

    def command(*words: str) -> None:
        subprocess.run([program, *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    return {
        "clustersh history": lambda: command("history"),
        "clustersh cat UUID": lambda: command("cat", uuid),
        "GET /v1/jobs": lambda: rest.read("/v1/jobs"),
        "GET .../output": lambda: rest.read(f"/v1/jobs/ws1/{uuid}/output"),
    }


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
