"""Commands that are the agent's own program: run by its Python, whatever the PATH of commands holds.

So they are the same text for every machine and every shell, and what carries out commands without an agent may
do it otherwise.
"""

from __future__ import annotations

import sys

from ...wire.jobs import PROBE

_PROGRAM = (sys.executable, "-I", "-m", "clustersh.probe")
"""Isolated: what Python takes from the user's environment and the working directory is not for this program."""


def own_words(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return *argv* as it is to be run here."""
    if argv[: len(PROBE)] == PROBE:
        return _PROGRAM + argv[len(PROBE) :]
    return argv
