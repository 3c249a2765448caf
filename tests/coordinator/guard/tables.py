"""The tables of commands and the rules that they break. Nothing of them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PASS = "pass"
_HERE = Path(__file__).parent


class Row(NamedTuple):
    """A *command*, and the *rules* that it breaks: none where it is harmless."""

    command: str
    rules: frozenset[str]


def read(name: str) -> list[Row]:
    """Return the rows of the table *name*."""
    rows, rules = list[Row](), frozenset[str]()
    for line in (_HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            rules = frozenset(line.split()[1:]) - {PASS}
        elif line and not line.startswith("%%"):
            rows.append(Row(line.replace("⏎", "\n"), rules))
    return rows


BASH = read("bash")
POWERSHELL = read("powershell")
