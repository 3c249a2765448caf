"""``clustersh``: the console script. Ctrl-C is quiet before anything is imported, which takes most of a short run."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum, which takes longer than all of this
import os
import sys

from ..standard_descriptors import open_standard_descriptors
from .standby.launcher import Launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """The console script."""
    # Until the program handles signals itself, Python would answer with a traceback out of an import.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    open_standard_descriptors()
    launcher = Launcher(sys.argv[1:], os.environ, _working_directory)
    status = launcher.call()
    if status is not None:
        os._exit(status)
    from ..cli.program import run_program

    if launcher.lost:
        from .standby.lost import tell

        run_program("clustersh", lambda invocation: tell(invocation, launcher))
    from .commands import choose

    run_program("clustersh", choose, key=launcher.key, at_end=launcher.leave)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # pathlib takes longer to import than all of this
    except OSError:
        return os.environ.get("PWD", "/")
