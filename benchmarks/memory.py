"""How much memory an idle agent and an idle coordinator take, and each idle agent that is connected.

*Unique* is what would be free if the process ended (private pages), *resident* counts what it shares too. The
connected agents are simulated, many in one process, with real mutual TLS and WebSockets; what one takes is what the
coordinator grew by, divided.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .crowds import connected, enroll
from .programs import memory, started_cluster
from .tables import aim, run, table

SETTLE_S = 2.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="memory of idle services, and of each connected agent")
    parser.add_argument("--agents", type=int, default=500, help="simulated agents (default: 500)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name:
        folder = Path(name)
        with started_cluster(folder) as cluster:
            enroll(cluster, folder / "agents", options.agents)
            time.sleep(SETTLE_S)
            agent, coordinator = memory(cluster.agent_pid), memory(cluster.coordinator_pid)
            with connected(cluster.address, folder / "agents", options.agents):
                time.sleep(SETTLE_S)
                crowded = memory(cluster.coordinator_pid)
    return report(agent, coordinator, crowded, options.agents)


def report(agent: dict[str, float], coordinator: dict[str, float], crowded: dict[str, float], count: int) -> str:
    """Return the table and how it stands to its aims."""
    each = {kind: (crowded[kind] - coordinator[kind]) / count * 1024 for kind in crowded}
    named = {
        "agent, idle (MiB)": agent,
        "coordinator, idle (MiB)": coordinator,
        f"coordinator, {count} agents (MiB)": crowded,
        "of which each agent (KiB)": each,
    }
    rows = [(name, f"{figures['unique']:.1f}", f"{figures['resident']:.1f}") for name, figures in named.items()]
    return (
        table(["memory", "unique", "resident"], rows)
        + aim("idle agent under 40 MiB unique, 60 resident", agent["unique"] < 40 and agent["resident"] < 60)
        + aim("idle coordinator under 50 MiB unique", coordinator["unique"] < 50)
        + aim("each connected agent under 75 KiB", each["unique"] < 75)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
