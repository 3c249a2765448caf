"""Simulated agents beside a coordinator: enrolled in bulk, in a few processes that are started and ended here."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .filling import agents, append
from .programs import ROOT, Cluster, restarted
from .tables import Unable

EACH = 1250
"""Agents that one process simulates at most."""
WITHIN_S = 180.0
"""Seconds in which they must all be there."""


def enroll(cluster: Cluster, folder: Path, count: int) -> None:
    """Let *count* agents in, with credentials under *folder*; the coordinator is restarted for it."""
    home = cluster.coordinator.path / "coordinator"
    restarted(cluster, lambda: append(home, agents(home, folder, count)))


class Crowd:
    """The simulated agents of some processes."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def until_welcome(self, within_s: float = WITHIN_S) -> float:
        """Wait until all are welcome, once more; return when the last one was (seconds of the monotonic clock)."""
        give_up, last = time.monotonic() + within_s, 0.0
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, give_up - time.monotonic()))
                if not ready:
                    raise Unable(f"not all of the simulated agents came within {within_s:g} s")
                for key, _ in ready:
                    stream = key.fileobj
                    assert not isinstance(stream, int)
                    line = stream.readline()  # type: ignore[attr-defined]
                    if not line:
                        raise Unable("the simulated agents ended")
                    last = max(last, float(line))
                    selector.unregister(stream)
        return last


@contextlib.contextmanager
def connected(address: str, folder: Path, count: int, output: str = "", first: int = 0) -> Iterator[Crowd]:
    """Have *count* agents of *folder* connected, from the *first* on; each of their jobs prints *output*."""
    with contextlib.ExitStack() as running:
        processes = []
        for begin in range(first, first + count, EACH):
            words = ["--first", str(begin), "--count", str(min(EACH, first + count - begin)), "--output", output]
            command = [sys.executable, "-m", "benchmarks.many_agents", address, str(folder), *words]
            processes.append(
                running.enter_context(
                    subprocess.Popen(
                        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                    )
                )
            )
        crowd = Crowd(processes)
        try:
            crowd.until_welcome()
            yield crowd
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                process.wait()
