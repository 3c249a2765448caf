"""`true` on many machines that are all this host, as whole processes: clustersh beside what others use for that.

All agents are real where there is memory for them, else 20 are (the rest is simulated, see many_agents.py). clush
(ClusterShell) and pdsh go over one real sshd under as many names, over new connections and over kept ones
(ControlMaster), to all machines at once; so does Ansible's raw module, over connections that it keeps and with a fork
for each machine. Salt has a master and minions of its own, clustersh a warm standby. The runs are interleaved. A peer
that can't be had is named, and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .crowds import connected, enroll
from .filling import machine_names
from .latency import measure as interleaved
from .peers import Command, over_ssh, salt
from .programs import Cluster, keep_standby, started_cluster, succeed
from .real_agents import real_agents, room_for
from .tables import Unable, aim, run, table

OURS = "clustersh run"


class Aim(NamedTuple):
    """At least so many times as fast as *peer*."""

    peer: str
    times: float


AIMS = (
    Aim("clush, new connections", 10),
    Aim("clush, kept connections", 2),
    Aim("ansible -m raw, kept connections", 10),
    Aim("salt cmd.run", 6),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="one command on many machines, beside clush, pdsh, Ansible and Salt")
    parser.add_argument("--machines", type=int, default=100, help="beside clush and pdsh (default: 100)")
    parser.add_argument("--ansible", type=int, default=50, help="machines beside Ansible (default: 50)")
    parser.add_argument("--salt", type=int, default=20, help="machines beside Salt (default: 20)")
    parser.add_argument("--real", type=int, default=None, help="real agents (default: all, else 20 of them)")
    parser.add_argument("--turns", type=int, default=3, help="measured turns of each (default: 3)")
    return run(parser, arguments, measure)


def measure(options: argparse.Namespace) -> str:
    count = max(options.machines, options.ansible, options.salt)
    real = options.real
    if real is None:
        real = count if room_for() >= count else min(20, count)
    with tempfile.TemporaryDirectory(prefix="clustersh-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        cluster = running.enter_context(started_cluster(folder))
        enroll(cluster, folder / "agents", count)
        running.enter_context(real_agents(cluster, folder / "agents", real))
        if real < count:
            running.enter_context(connected(cluster.address, folder / "agents", count - real, first=real))
        keep_standby(cluster.client)
        compare = Comparison(cluster, folder, options.turns)
        if options.machines:
            compare.clush_and_pdsh(options.machines)
        if options.ansible:
            compare.ansible(options.ansible)
        if options.salt:
            compare.salt(options.salt)
    return report(compare.measured, compare.missing, real, count)


class Comparison:
    """Runs one peer after the other; *measured* has the milliseconds by number of machines and command."""

    def __init__(self, cluster: Cluster, folder: Path, turns: int) -> None:
        self._cluster = cluster
        self._folder = folder
        self._turns = turns
        self.measured: dict[int, dict[str, list[float]]] = {}
        self.missing: dict[str, str] = {}

    def clush_and_pdsh(self, count: int) -> None:
        """Over one sshd under *count* names."""
        with self._or_missing("clush and pdsh"), over_ssh(self._folder / "ssh") as peers:
            commands: dict[str, Command] = {}
            for name, make in (("clush", peers.clush), ("pdsh", peers.pdsh)):
                for way in ("new", "kept"):
                    with self._or_missing(name):
                        commands[f"{name}, {way} connections"] = make(f"{way}[1-{count}]", count)
            self._take(count, commands)

    def ansible(self, count: int) -> None:
        """Over one sshd under *count* names, with connections that Ansible keeps."""
        hosts = [f"new{number}" for number in range(1, count + 1)]
        with self._or_missing("ansible"), over_ssh(self._folder / "ssh-ansible") as peers:
            self._take(count, {"ansible -m raw, kept connections": peers.ansible(hosts)})

    def salt(self, count: int) -> None:
        """With a master and *count* minions."""
        with self._or_missing("salt"), salt(self._folder / "salt", count) as command:
            self._take(count, {"salt cmd.run": command})

    @contextlib.contextmanager
    def _or_missing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Unable as error:
            self.missing[name] = str(error)

    def _take(self, count: int, commands: Mapping[str, Command]) -> None:
        target = machine_names(count)
        ours: dict[str, Command] = {OURS: lambda: succeed(self._cluster.client, "clustersh", "run", target, "true")}
        self.measured[count] = interleaved({**ours, **commands}, 1, self._turns)


def report(
    measured: Mapping[int, Mapping[str, Sequence[float]]], missing: Mapping[str, str], real: int, count: int
) -> str:
    """Return the table and how it stands to its aims; medians of the turns."""
    rows, aims = [], []
    for machines, figures in measured.items():
        ours = statistics.median(figures[OURS])
        for name, times in figures.items():
            middle = statistics.median(times)
            rows.append((f"{name}, {machines}", f"{middle / 1000:.2f}", f"{middle / ours:.1f}", str(len(times))))
        aims += [
            aim(f"at least {each.times:g} times as fast as {each.peer} (here {ratio:.1f})", ratio >= each.times)
            for each in AIMS
            if each.peer in figures
            for ratio in [statistics.median(figures[each.peer]) / ours]
        ]
    left_out = "".join(f"left out: {name}: {why}\n" for name, why in missing.items())
    return (
        f"{real} real agents, {count - real} simulated ones\n"
        + table(["`true` on so many machines", "seconds", "times clustersh's", "turns"], rows)
        + left_out
        + "".join(aims)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
