"""``clustersh``: the console script. Ctrl-C is quiet before anything is imported, which takes most of a short run."""

from __future__ import annotations

from ..interrupts import end_quietly

end_quietly()

TYPE_CHECKING = False  # `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    from ..cli.program import run_program
    from .commands import choose

    run_program("clustersh", choose)
