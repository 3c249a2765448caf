"""``clustersh``: the console script."""

import _signal  # type: ignore[import-not-found]
import os
import sys

# Ctrl-C is quiet from here on: these are there from the start, while to import anything else takes time.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

from ..standard_descriptors import open_standard_descriptors
from .standby.launcher import Launcher

TYPE_CHECKING = False  # `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """The console script."""
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
