"""``clustersh``: the console script. Ctrl-C is quiet before anything is imported, which takes most of a short run."""

from __future__ import annotations

from ..interrupts import end_quietly

end_quietly()

import os  # noqa: E402
import sys  # noqa: E402

from ..standard_descriptors import open_standard_descriptors  # noqa: E402
from .standby.launcher import Launcher  # noqa: E402

TYPE_CHECKING = False  # `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
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
