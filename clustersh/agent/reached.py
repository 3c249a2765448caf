"""Whether this agent gets to where a machine's commands run, and who is told when that changes."""

from __future__ import annotations

from collections.abc import Callable


class Reached:
    """*problem* says why the machine is not reached; "" while it is, or nobody has tried."""

    def __init__(self) -> None:
        self.problem = ""
        self._watchers: list[Callable[[], None]] = []

    def watch(self, told: Callable[[], None]) -> None:
        """Call *told* at each change from now on."""
        self._watchers.append(told)

    def leave(self, told: Callable[[], None]) -> None:
        """Call it no more."""
        if told in self._watchers:
            self._watchers.remove(told)

    def tell(self, problem: str) -> None:
        """Note how it is now."""
        if problem != self.problem:
            self.problem = problem
            for told in tuple(self._watchers):
                told()
