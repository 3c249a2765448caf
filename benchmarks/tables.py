"""Tables of figures, and the way every benchmark starts, ends and fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence


class Unable(Exception):
    """The benchmark can't run here; the message says what is missing."""


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return *rows* in columns under *heading*: the first to the left, the figures to the right."""
    texts = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heading))]
    return "".join(_line(row, widths) + "\n" for row in texts)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()


def aim(said: str, met: bool) -> str:
    """Return the line that holds a figure against what it should be."""
    return f"aim: {said}: {'met' if met else 'MISSED'}\n"


def run(parser: argparse.ArgumentParser, arguments: Sequence[str], measure: Callable[[argparse.Namespace], str]) -> int:
    """Print what *measure* returns for *arguments*; return the exit status."""
    options = parser.parse_args(arguments)
    try:
        text = measure(options)
    except Unable as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0
