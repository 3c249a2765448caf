"""Tables as the contract shows them: ``name | platform``, a rule of ``=``, and one line a row."""

from __future__ import annotations

from collections.abc import Sequence

from .text import display_width, printable, shortened

MIN_COLUMN = 8
"""No column is shortened below this width, unless the terminal is too narrow for even that."""
_LAST_RESORT = 4
"""Then all but the first are shortened down to this: whose row it is stays readable."""


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return the table as text, each line ended; cells are made printable.

    With *width* (a terminal's columns) the widest columns are shortened until a line fits.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([display_width(header), *(display_width(row[column]) for row in cells)])
        for column, header in enumerate(headers)
    ]
    if width is not None:
        _fit(widths, width)
    rule = "|".join("=" * (column + (1 if at in (0, len(widths) - 1) else 2)) for at, column in enumerate(widths))
    lines = [_line(headers, widths), rule, *(_line(row, widths) for row in cells)]
    return "".join(line + "\n" for line in lines)


def natural_width(columns: Sequence[Sequence[str]]) -> int:
    """Return how wide a table with those *columns*, headers included, is with nothing shortened."""
    return sum(max(display_width(printable(cell)) for cell in column) for column in columns) + 3 * (len(columns) - 1)


def _fit(widths: list[int], width: int) -> None:
    excess = sum(widths) + 3 * (len(widths) - 1) - width
    for least, columns in ((MIN_COLUMN, range(len(widths))), (_LAST_RESORT, range(1, len(widths)))):
        while excess > 0:
            widest = max(columns, key=widths.__getitem__, default=0)
            if widths[widest] <= least:
                break
            widths[widest] -= 1
            excess -= 1


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    fitted = (shortened(cell, column) for cell, column in zip(cells, widths, strict=True))
    padded = (cell + " " * (column - display_width(cell)) for cell, column in zip(fitted, widths, strict=True))
    return " | ".join(padded).rstrip()
