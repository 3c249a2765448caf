"""``clusteragent``: without a command the service in the foreground, else one of its commands."""

import _signal  # type: ignore[import-not-found]
import os
import sys

# Ctrl-C is quiet from here on: these are there from the start, while to import anything else takes time.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

TYPE_CHECKING = False  # `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from typing import NoReturn

_ABOUT_ITSELF = ("-h", "--help", "-V", "--version")


def main() -> "NoReturn":
    """The console script."""
    words = sys.argv[1:]
    if words and (not words[0].startswith("-") or words[0] in _ABOUT_ITSELF):
        from ..cli.program import run_program
        from .commands import choose

        run_program("clusteragent", choose)
    from ..heap import start_without_collections

    start_without_collections()
    from pathlib import Path

    from ..daemon import run_twistd
    from .plugin import Options

    # In the user's home, so that commands, which run there, inherit it.
    run_twistd("clusteragent", words, Options(), rundir=Path.home())
