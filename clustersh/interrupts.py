"""Ctrl-C while a program is only being imported: what the console scripts import first, so nothing else is imported."""

import _signal  # type: ignore[import-not-found]  # `signal` imports enum, which takes longer than all of this
import os

INTERRUPTED = 130


def end_quietly() -> None:
    """Until the program handles signals itself, have SIGINT end it; Python's own way is a traceback."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
