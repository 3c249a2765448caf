"""Points at which a test may kill a service, to see what survives.

Nothing happens unless the environment of a service names a folder in ``CLUSTERSH_FAULTS``: then a file there, named
like a point, kills the service with SIGKILL the next time that it gets there. The file goes with it: once is enough.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_folder = os.environ.get("CLUSTERSH_FAULTS")


def reached(point: str) -> None:
    """Die here if a test asked for it."""
    if _folder is not None:
        _die_if_asked(Path(_folder) / point)


def _die_if_asked(armed: Path) -> None:
    try:
        armed.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
