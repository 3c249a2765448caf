"""Tables as the contract shows them: ``name | platform``, a rule of ``=``, and one line a row."""

from __future__ import annotations

from collections.abc import Sequence

from .text import display_width, printable, shortened

MIN_COLUMN = 8
"""No column is shortened below this width, however narrow the terminal."""


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


def _fit(widths: list[int], width: int) -> None:
    excess = sum(widths) + 3 * (len(widths) - 1) - width
    while excess > 0:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= MIN_COLUMN:
            return
        widths[widest] -= 1
        excess -= 1


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    fitted = (shortened(cell, column) for cell, column in zip(cells, widths, strict=True))
    padded = (cell + " " * (column - display_width(cell)) for cell, column in zip(fitted, widths, strict=True))
    return " | ".join(padded).rstrip()
