"""Commands that tests let go on step by step, and that count how often they ran."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..real.programs import eventually
from .services import FaultyCluster


@dataclass
class Steps:
    """A command that counts how often it runs, and goes on from one step to the next when it is let."""

    folder: Path

    def shell(self, *between: str) -> str:
        """Return the command line; it waits before each part but the first."""
        waits = [
            f"touch {self.folder}/at{step}; until [ -e {self.folder}/go{step} ]; do sleep 0.02; done; {part}"
            for step, part in enumerate(between[1:], 1)
        ]
        return "; ".join([f"echo once >> {self.folder}/counter", between[0], *waits])

    def until(self, step: int) -> None:
        eventually((self.folder / f"at{step}").exists)

    def go(self, step: int) -> None:
        (self.folder / f"go{step}").touch()

    def check_ran_once(self, cluster: FaultyCluster, state: str = "completed") -> None:
        eventually(lambda: cluster.outcomes(cluster.newest_run()), what=cluster.logs())
        assert (times_run(self.folder / "counter"), cluster.outcomes(cluster.newest_run())) == (1, [state])


def times_run(counter: Path) -> int:
    return len(counter.read_text().split()) if counter.exists() else 0
