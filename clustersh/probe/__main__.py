"""``python -m clustersh.probe [--timeout TIME] [--KIND TEXT]...``: prints one line of JSON.

Exit status: 0 where all is as it should be, 1 where something isn't, 2 where the arguments make no sense.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .grammar import read_options
from .probe import as_line, probe


def run(words: Sequence[str]) -> int:
    """Do what *words* ask for, and return the exit status."""
    try:
        timeout_s, checks = read_options(words)
        found = probe(checks, timeout_s)
    except ValueError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return 2
    sys.stdout.buffer.write(as_line(found).encode())  # in UTF-8, whatever the locale is
    return 0 if all(one.ok for one in found) else 1


if __name__ == "__main__":
    status = run(sys.argv[1:])
    sys.stdout.flush()
    # A check that never came to its end would keep the interpreter from ending.
    os._exit(status)
