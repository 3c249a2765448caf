"""``clustersh``: the console script. Ctrl-C is quiet before anything is imported, which takes most of a short run."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """The console script."""
    # Until the program handles signals itself, Python would answer with a traceback out of an import.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from ..cli.program import run_program
    from .commands import choose

    run_program("clustersh", choose)
