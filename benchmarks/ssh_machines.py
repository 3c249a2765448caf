"""`true` on machines that only have SSH, as whole processes: clustersh through a gateway, beside ssh and clush.

All are names of one real sshd on this host. `ssh` has a kept connection (ControlMaster), and so has each host of clush;
the gateway has its own, and clustersh a warm standby. What the gateway's agent finds as ssh is a line of shell, which
says where the configuration is; so plain ssh is measured by way of that too. The runs are interleaved; one of them is
asked for over a kept REST connection, without a client's program to start. The gateway's memory is measured before and
after it carries them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.real.programs import Home
from tests.real.sshd import have_ssh

from .latency import measure as interleaved
from .peers import over_ssh
from .programs import Cluster, keep_standby, memory, started_cluster, succeed
from .tables import aim, run, table

ONE, MANY = "ssh, kept connection", "clush, kept connections"
OURS_ONE, OURS_MANY = "clustersh run", "clustersh run, of many"
ASKED = "the same run, asked for over REST"
TIMES_SSH, TIMES_CLUSH = 2.0, 1.2
KIB = 1024


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="one command on machines that only have SSH, beside ssh and clush")
    parser.add_argument("--machines", type=int, default=20, help="beside clush (default: 20)")
    parser.add_argument("--turns", type=int, default=11, help="measured turns of each (default: 11)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    count: int = options.machines
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        peers = running.enter_context(over_ssh(folder / "ssh"))

        def prepare(home: Home) -> None:
            have_ssh(home, f"exec /usr/bin/ssh -F '{peers.names}' \"$@\"")

        cluster = running.enter_context(started_cluster(folder, prepare=prepare))
        before, grown = memory(cluster.agent_pid)["unique"], 0.0
        for number in range(1, count + 1):
            succeed(cluster.client, "clustersh", "adopt", f"new{number}")
            if number == 1:  # what is imported once is no machine's
                before = memory(cluster.agent_pid)["unique"]
        grown = memory(cluster.agent_pid)["unique"] - before
        keep_standby(cluster.client)
        rest = running.enter_context(contextlib.closing(cluster.rest()))

        def asked() -> None:
            rest.run("true", target="new1")

        ours = {OURS_ONE: lambda: _ours(cluster, "new1"), ASKED: asked}
        plain = peers.ssh("kept1", cluster.agent.path.parent / "bin" / "ssh")
        one = interleaved({**ours, ONE: plain}, 2, options.turns)
        target = f"new[1-{count}]"
        clush = peers.clush(f"kept[1-{count}]", count)
        many = interleaved({OURS_MANY: lambda: _ours(cluster, target), MANY: clush}, 2, options.turns)
    each = grown * KIB / max(1, count - 1)
    return report(one, many, each, count)


def _ours(cluster: Cluster, target: str) -> None:
    succeed(cluster.client, "clustersh", "run", target, "true")


def report(one: dict[str, list[float]], many: dict[str, list[float]], each: float, count: int) -> str:
    """Return the table and how it stands to its aims; medians of the turns."""
    middle = {name: statistics.median(times) for name, times in {**one, **many}.items()}
    rows = [
        (f"{name}, {number}", f"{middle[name]:.1f}", f"{min(figures[name]):.1f}", str(len(figures[name])))
        for figures, number in ((one, 1), (many, count))
        for name in figures
    ]
    to_ssh, to_clush = middle[OURS_ONE] / middle[ONE], middle[OURS_MANY] / middle[MANY]
    asked = middle[ASKED] / middle[ONE]
    return (
        table(("command `true`, machines", "median ms", "min ms", "turns"), rows)
        + f"memory of a machine that is carried: {each:.0f} KiB in its gateway's agent\n"
        + aim(f"at most {TIMES_SSH:g} times plain ssh (here {to_ssh:.2f})", to_ssh <= TIMES_SSH)
        + aim(f"the same over REST (here {asked:.2f})", asked <= TIMES_SSH)
        + aim(f"at most {TIMES_CLUSH:g} times clush (here {to_clush:.2f})", to_clush <= TIMES_CLUSH)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
