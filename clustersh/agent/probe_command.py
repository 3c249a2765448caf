"""``clusteragent probe``: what ``clustersh check`` asks of this machine, for whoever sits at it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ..cli.commands import Start
from ..cli.errors import Answer
from ..cli.invocation import Invocation
from ..probe.__main__ import run
from ..probe.grammar import READERS

_HELP = f"""usage: clusteragent probe [--timeout TIME] [--{" TEXT] [--".join(READERS)} TEXT] ...

Check this machine, as clustersh check does from afar; print one line of JSON.

examples:
  clusteragent probe --http http://localhost:8080/health --service nginx
  clusteragent probe --disk '/ < 90%' --timeout 5s
"""


class ProbeStart:
    """One probe, ready to start. It needs no reactor."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words

    def at_once(self) -> int:
        """Make the checks; the exit status says whether all is well."""
        return run(self._words)

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Needed for a command's type; `at_once` is always enough."""
        raise AssertionError("a probe needs no reactor")


def prepare(_invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``probe``; what checks they ask for is read by the probe itself."""
    if {"-h", "--help"} & set(arguments[::2]):
        raise Answer(_HELP)
    return ProbeStart(arguments)
